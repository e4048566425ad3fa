"""What `petground ground` leaves: masks, pictures, tables, DICOM objects, and what it says of them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import InputError, PetgroundError
from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.pipeline.cropped import CroppedMask
from petground.pipeline.dicom.objects import Finding3D, read_source
from petground.pipeline.dicom.write import OBJECT_FILES, write_objects
from petground.pipeline.files import write_bytes
from petground.pipeline.ground_by import Asked, reported_k
from petground.pipeline.ground_checks import not_as_reported
from petground.pipeline.ground_pictures import Shown, finding_picture
from petground.pipeline.nifti import write_nifti
from petground.pipeline.pictures import write_png
from petground.pipeline.read import Exam
from petground.pipeline.sides import MeasuredSide, measure_side

__all__ = ["NO_WORDS", "as_finding", "dicom_objects", "owned", "show", "write_answer"]

MARKER = ".petground-ground"  # a folder that bears it holds what this command wrote, and may be written anew
OURS = ("f[0-9]*.nii.gz", "f[0-9]*.png", "overview.png", "findings.csv", "findings.json", *OBJECT_FILES)
INDICES = ("findings.csv", "findings.json")
PART = ".part"
NO_WORDS = "nothing but numbers in the sentence"


@contextlib.contextmanager
def owned(out: Path) -> Iterator[Path]:
    """Holds OUT for this run; gives a folder in it to write to, whose files take the place of an earlier answer when
    they are whole: no mask of another report stays beside the new ones, and a run that fails leaves the earlier
    answer as it was. Files that bear our names but are not ours are not touched.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            found = [path for pattern in OURS for path in out.glob(pattern)]
            if found and not (out / MARKER).is_file():
                raise InputError(
                    f"{out} holds {found[0].name}, of another program or an earlier release",
                    fix="choose another --out, or empty the folder",
                )
            write_bytes(out / MARKER, b"")
            part = out / PART
            shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
            try:
                part.mkdir()
                yield part
                for path in sorted(found, key=lambda path: path.name not in INDICES):  # what names masks goes first
                    path.unlink(missing_ok=True)
                for path in sorted(part.iterdir(), key=lambda path: path.name in INDICES):
                    os.replace(path, out / path.name)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None


def write_answer(
    out: Path, one: Asked, answer: Any, images: Exam, site: Site, same_as: str | None = None, surety: str = "presence"
) -> tuple[dict[str, Any], Shown | None]:
    """Mask and picture of one sentence; its row, and what the overview shows of it.

    answer: None for a sentence that was not asked of anybody. same_as: who had the same mask before. surety: what its
    presence is (`Grounder.surety`).
    """
    row = _row(one, answer, images, site)
    row["same_mask_as"] = same_as
    if answer is None:
        return row, None
    picture = _shown(one, answer, row, images, site, surety)
    write_nifti(out / row["mask_path"], images.pet.like(answer.mask.astype(np.uint8), "label"))
    write_png(out / row["picture_path"], finding_picture(images.pet, images.ct, picture))
    return row, picture


def as_finding(one: Asked, answer: Any, images: Exam, method: str, *, refuted: bool) -> Finding3D:
    """A sentence's answer as a segment, without side and site that the image contradicts. method: who answered, in
    words. refuted: its row tells what is `not_as_reported`."""
    side, site, heading = _side(one, answer, images).place(one.site)
    if refuted:  # it is another thing than the sentence's
        side, site, heading = None, None, f"Not as reported: {heading}"
    return Finding3D(
        finding_id=f"ground {one.finding_id}",  # another thing than the label of the same sentence
        label=f"{heading} ({one.finding_id})",
        mask=CroppedMask.of(answer.mask, images.pet.affine),
        suv_max=answer.suv_max,
        volume_ml=answer.volume_ml,
        site=site,
        laterality=side,
        method=method,
        learned=True,
    )


def dicom_objects(out: Path, exam: Path, images: Exam, findings: Sequence[Finding3D]) -> dict[str, Any]:
    """SEG, SR and value map of what was found, where the exam is DICOM: the files written, or the problem.

    The masks stand without them: what keeps a series from being referred to is told, and loses nothing else.
    """
    if images.source != "dicom" or not findings:
        return {"files": [], "problem": None}
    try:
        source = read_source(exam, images.pet, case=exam.name)
        files = write_objects(out, source, findings, case=exam.name, suv_factor=images.suv_factor)
    except PetgroundError as error:
        return {"files": [], "problem": str(error)}
    return {"files": files, "problem": None}


def show(
    console: Console,
    out: Path,
    rows: Sequence[dict[str, Any]],
    unseen: Sequence[dict[str, Any]],
    dicom: dict[str, Any],
    who: str,
    surety: str = "presence",
) -> None:
    """The table a person wants to see first, and what did not go well. who: "the model", or a peer's name."""
    table = Table(title="measured (reported)", title_justify="left")
    for name in ("finding", "SUVmax", "slice", "side", "volume", surety):
        table.add_column(name, justify="left" if name == "finding" else "right")
    for row in rows:
        suv = "-" if row["suv_measured"] is None else f"{row['suv_measured']:.2f}"
        at = "-" if row["slice_measured"] is None else str(row["slice_measured"])
        suv += f" ({row['suv_reported']:g})" if row["suv_reported"] is not None else ""
        at += f" ({row['slice_reported']})" if row["slice_reported"] is not None else ""
        side = row["side_measured"] or "-"
        side += f" ({row['side_reported']})" if row["side_reported"] is not None else ""
        volume = f"{row['volume_ml']:.1f} ml" if row["found"] else "-"
        presence = "-" if row["presence"] is None else f"{row['presence']:.2f}"
        table.add_row(row["finding_id"], suv, at, side, volume, presence)
    console.print(table)
    for row in rows:
        if row["mask_path"] is None:
            console.print(f"{row['finding_id']}: {row['problem']}; {who} was not asked.", style="yellow")
        elif row["problem"] is not None:
            console.print(f"{row['finding_id']}: {row['problem']}.", style="yellow", soft_wrap=True)
        for key, words in (("not_as_reported", "NOT AS REPORTED:"), ("same_mask_as", "the same mask as")):
            if row[key]:
                console.print(f"{row['finding_id']}: {words} {row[key]}.", style="yellow", soft_wrap=True)
        if row["mask_path"] is not None and row["problem"] is None and not row["found"]:
            console.print(f"{row['finding_id']}: {who} does not see what this sentence says; its mask is empty.")
    for run in unseen:
        first, last = run["slices"]
        console.print(f"slices {first} to {last} lie outside the model's grid and were not looked at.", style="yellow")
    if dicom["problem"] is not None:
        console.print(f"no SEG and SR: {dicom['problem']}", style="yellow", markup=False, soft_wrap=True)
    for name in ("overview.png", *dicom["files"]):
        console.print(f"  {out / name}", highlight=False, soft_wrap=True)


def _row(one: Asked, answer: Any, images: Exam, site: Site) -> dict[str, Any]:
    found = answer is not None and answer.voxel_ijk is not None
    side = _side(one, answer, images)
    return {
        "finding_id": one.finding_id,
        "found": found,
        "presence": None if answer is None or answer.presence is None else round(answer.presence, 4),
        "suv_measured": round(answer.suv_max, 3) if found else None,
        "suv_reported": one.suv,
        "slice_measured": slice_number(answer.voxel_ijk[2], images.pet, site, images.ct) if found else None,
        "slice_reported": one.slice,
        "side_measured": side.words,
        "side_reported": one.laterality,
        "right_of_midline_mm": None if side.right_mm is None else round(side.right_mm, 1),
        "volume_ml": None if answer is None else round(answer.volume_ml, 3),
        "voxel_ijk": list(answer.voxel_ijk) if found else None,
        "mask_path": None if answer is None else f"{one.finding_id}.nii.gz",
        "picture_path": None if answer is None else f"{one.finding_id}.png",
        "problem": NO_WORDS if answer is None else side.contradiction,
        "not_as_reported": "; ".join(not_as_reported(one, answer, images.pet, images.ct, site)) or None,
        "same_mask_as": None,
        "sentence": one.sentence,
        "prompt": one.prompt,
    }


def _side(one: Asked, answer: Any, images: Exam) -> MeasuredSide:
    return measure_side(None if answer is None else answer.voxel_ijk, images.pet, images.ct, one.laterality)


def _shown(one: Asked, answer: Any, row: dict[str, Any], images: Exam, site: Site, surety: str) -> Shown:
    """An empty mask is shown at the reported slice, where there is one: that is where a reader looks first."""
    reported = f" (reported {one.suv:g})" if one.suv is not None else ""
    presence = f"{surety} {row['presence']:.2f}" if row["presence"] is not None else ""
    mask = CroppedMask.of(answer.mask, images.pet.affine)
    if row["found"]:
        at = f" (reported {one.slice})" if one.slice is not None else ""
        told = (
            f"{one.finding_id}",
            f"SUVmax {row['suv_measured']:.2f}{reported}",
            f"slice {row['slice_measured']}{at}",
            f"{row['volume_ml']:.1f} ml",
            presence,
            "OTHER SIDE THAN SAID" if row["problem"] is not None else "",
            f"NOT AS REPORTED: {row['not_as_reported']}" if row["not_as_reported"] else "",
            f"SAME MASK AS {row['same_mask_as']}" if row["same_mask_as"] else "",
        )
        return Shown(one.finding_id, mask, answer.voxel_ijk[2], "   ".join(filter(None, told)), one.sentence)
    at_reported = reported_k(one, images.pet, images.ct, site)
    values = (("SUVmax", one.suv), ("slice", one.slice))
    reported = ", ".join(f"{name} {value:g}" for name, value in values if value is not None)
    reported = f"; reported {reported}" if reported else ""
    headline = f"{one.finding_id}   nothing found{f' ({presence})' if presence else ''}{reported}"
    return Shown(one.finding_id, mask, at_reported[0] if at_reported else None, headline, one.sentence)
