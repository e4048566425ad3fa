"""`petground ground`: a sentence or a whole report on one exam, a mask per sentence."""

from __future__ import annotations

import contextlib
import csv
import io
import pkgutil
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from petground.labeling.errors import InputError
from petground.labeling.numbering import slice_number, slice_to_k
from petground.labeling.site import Site
from petground.labeling.suv_header import SuvFallbacks
from petground.pipeline.commands.label import read_site
from petground.pipeline.files import write_bytes, write_json
from petground.pipeline.ground_pictures import Shown, finding_picture, overview_picture
from petground.pipeline.nifti import write_nifti
from petground.pipeline.pictures import write_png
from petground.pipeline.progress import progress
from petground.pipeline.read import Exam, read_exam

__all__ = ["ground"]


@dataclass(frozen=True)
class Asked:
    """One sentence to ground: `prompt` is what the model reads, the reported values are kept apart from it."""

    finding_id: str
    sentence: str
    prompt: str
    suv: float | None
    slice: int | None

    @property
    def has_words(self) -> bool:
        """Whether anything but numbers is left for the model to read."""
        return re.search(r"[^\W\d_]", self.prompt) is not None


MARKER = ".petground-ground"  # a folder that bears it holds what this command wrote, and may be written anew
OURS = ("f[0-9]*.nii.gz", "f[0-9]*.png", "overview.png", "findings.csv", "findings.json")
NO_WORDS = "nothing but numbers in the sentence"


def ground(
    exam: Path,
    checkpoint: Path,
    out: Path,
    text: str | None = None,
    report: Path | None = None,
    site: Path | None = None,
    weight_kg: float | None = None,
    device: str = "auto",
) -> int:
    """Find on one exam what a sentence, or every positive sentence of a report, speaks of.

    Writes OUT/<finding>.nii.gz (a mask on the PET grid) and a picture for each sentence, overview.png, findings.json
    and findings.csv. A sentence whose lesion the model does not see gets an empty mask, and is told so; one that holds
    nothing but numbers is not asked of the model (exit code 3).

    Args:
        exam: folder with DICOM in any nesting, or pet.nii.gz [SUVbw] and ct.nii.gz [HU].
        checkpoint: a .ckpt file of `petground train`.
        out: folder for masks, pictures and tables.
        text: one sentence; its SUV and slice, if any, are not shown to the model.
        report: a text file with a whole report; its current lesions with SUVmax and slice are grounded.
        site: YAML with the site's conventions (how slices are counted); default: from the head, from 1.
        weight_kg: the patient's weight, where the DICOM header has none.
        device: auto, cpu, cuda or mps.
    """
    console = Console()
    convention = read_site(site)
    asked = _asked(text, report, convention)
    if not exam.exists():
        raise InputError(f"no exam at {exam}", fix="give a folder with DICOM, or with pet.nii.gz and ct.nii.gz")
    # Named by string: pipeline must not know of networks (import contract), the command line joins the rooms.
    load_module = pkgutil.resolve_name("petground.training.inference:load_module")
    ground_volumes = pkgutil.resolve_name("petground.training.inference:ground_volumes")
    module = load_module(checkpoint, device=device)
    fallbacks = SuvFallbacks(weight_kg, convention.half_life_from_code)
    images = read_exam(exam, case=exam.name, fallbacks=fallbacks)
    with _owned(out):
        rows, shown = [], []
        askable = [one for one in asked if one.has_words]
        with progress(console) as tick:
            answers = iter(ground_volumes(module, images.pet, images.ct, [one.prompt for one in askable]))
            for done, one in enumerate(asked, start=1):
                answer = next(answers) if one.has_words else None
                row = _row(one, answer, images, convention)
                if answer is not None:
                    picture = _shown(one, answer, row, images, convention)
                    write_nifti(out / row["mask_path"], images.pet.like(answer.mask.astype(np.uint8), "label"))
                    write_png(out / row["picture_path"], finding_picture(images.pet, images.ct, picture))
                    shown.append(picture)
                rows.append(row)
                tick("sentences", done, len(asked))
        write_png(out / "overview.png", overview_picture(images.pet, shown))
        write_bytes(out / "findings.csv", _csv(rows))
        unseen = _not_looked_at(module.grid, images, convention)
        write_json(
            out / "findings.json",
            {
                "exam": exam.name,
                "source": images.source,
                "suv_rule": images.suv_rule,
                "series": images.pet_series,
                "checkpoint": checkpoint.name,
                "not_looked_at": unseen,
                "findings": rows,
            },
        )
    _show(console, out, rows, unseen)
    return 0 if len(askable) == len(asked) else 3


def _asked(text: str | None, report: Path | None, site: Site) -> list[Asked]:
    """What is to be grounded, from a sentence or from a report's positive findings."""
    from petground.labeling.extract import extract_findings
    from petground.labeling.language import make_prompt

    if (text is None) == (report is None):
        raise InputError("one of --text and --report is needed, not both", fix='--text "..." or --report FILE')
    if text is not None:
        if not text.strip():
            raise InputError("--text is empty", fix="give the sentence to ground")
        told = [f for f in extract_findings(text, site=site) if f.status == "positive"]
        suv, number = (told[0].suv, told[0].slice) if len(told) == 1 else (None, None)
        one = Asked("f001", text.strip(), make_prompt(text), suv, number)
        if not one.has_words:
            raise InputError(f"--text: {NO_WORDS}", fix="say in words what lies where")
        return [one]
    assert report is not None
    findings = [
        (f"f{number:03d}", finding)
        for number, finding in enumerate(extract_findings(_read_report(report), site=site), start=1)
        if finding.status == "positive"
    ]
    if not findings:
        raise InputError(
            "the report states no current lesion with SUVmax and slice",
            case=report.name,
            fix="try --text with a sentence",
        )
    asked = [Asked(finding_id, f.sentence, f.prompt, f.suv, f.slice) for finding_id, f in findings]
    if not any(one.has_words for one in asked):
        raise InputError(f"{NO_WORDS}, in each of {len(asked)}", case=report.name, fix="try --text with a sentence")
    return asked


def _read_report(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no report at {path}", fix="give a text file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the report is not UTF-8 text", case=path.name, fix="save it as plain UTF-8 text") from error
    if not text.strip():
        raise InputError("the report is empty", case=path.name, fix="give a file with text")
    return text


def _row(one: Asked, answer: Any, images: Exam, site: Site) -> dict[str, Any]:
    """What is written of a sentence; `answer` is None for one that was not asked of the model."""
    found = answer is not None and answer.voxel_ijk is not None
    return {
        "finding_id": one.finding_id,
        "found": found,
        "presence": None if answer is None else round(answer.presence, 4),
        "suv_measured": round(answer.suv_max, 3) if found else None,
        "suv_reported": one.suv,
        "slice_measured": _number(answer.voxel_ijk[2], images, site) if found else None,
        "slice_reported": one.slice,
        "volume_ml": None if answer is None else round(answer.volume_ml, 3),
        "voxel_ijk": list(answer.voxel_ijk) if found else None,
        "mask_path": None if answer is None else f"{one.finding_id}.nii.gz",
        "picture_path": None if answer is None else f"{one.finding_id}.png",
        "problem": NO_WORDS if answer is None else None,
        "sentence": one.sentence,
        "prompt": one.prompt,
    }


def _not_looked_at(spec: Any, images: Exam, site: Site) -> list[dict[str, Any]]:
    """Runs of PET slices whose middle lies above or below the model's grid: what the site prints, index and place."""
    template = pkgutil.resolve_name("petground.training.grid:model_template")(images.pet, spec)
    middle_ijk = [[(n - 1) / 2 for n in images.pet.shape[:2]] + [k] for k in range(images.pet.shape[2])]
    z_mm = images.pet.to_world_mm(np.array(middle_ijk, dtype=float))[:, 2]
    along = template.to_index(np.c_[np.tile(template.to_world_mm([0, 0, 0])[:2], (len(z_mm), 1)), z_mm])[:, 2]
    outside = np.flatnonzero((along < -0.5) | (along > template.shape[2] - 0.5))
    runs = np.split(outside, np.flatnonzero(np.diff(outside) > 1) + 1) if outside.size else []
    return [
        {
            "slices": sorted(_number(int(k), images, site) for k in (run[0], run[-1])),
            "voxel_k": [int(run[0]), int(run[-1])],
            "z_mm": sorted(round(float(z_mm[k]), 1) for k in (run[0], run[-1])),
        }
        for run in runs
    ]


def _number(k: int, images: Exam, site: Site) -> int:
    return slice_number(k, images.pet, site, images.ct)


def _shown(one: Asked, answer: Any, row: dict[str, Any], images: Exam, site: Site) -> Shown:
    """An empty mask is shown at the reported slice, where there is one: that is where a reader looks first."""
    reported = ""
    if one.suv is not None:
        reported = f" (reported {one.suv:g})"
    if row["found"]:
        at = f" (reported {one.slice})" if one.slice is not None else ""
        headline = (
            f"{one.finding_id}   SUVmax {row['suv_measured']:.2f}{reported}   slice {row['slice_measured']}{at}   "
            f"{row['volume_ml']:.1f} ml   presence {row['presence']:.2f}"
        )
        return Shown(one.finding_id, answer.mask, answer.voxel_ijk[2], headline, one.sentence)
    at_reported = slice_to_k(one.slice, images.pet, site, images.ct) if one.slice is not None else None
    told = f"; reported SUVmax {one.suv:g}, slice {one.slice}" if one.suv is not None else ""
    headline = f"{one.finding_id}   nothing found (presence {row['presence']:.2f}){told}"
    return Shown(one.finding_id, answer.mask, at_reported[0] if at_reported else None, headline, one.sentence)


@contextlib.contextmanager
def _owned(out: Path) -> Iterator[None]:
    """Holds OUT for this run and takes away what an earlier one wrote there: no mask of another report stays beside
    the new ones, even where that run was killed. Files that bear our names but are not ours are not touched.
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
            for path in found:
                path.unlink(missing_ok=True)
            yield
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8")


def _show(console: Console, out: Path, rows: Sequence[dict[str, Any]], unseen: Sequence[dict[str, Any]]) -> None:
    table = Table(title="measured (reported)", title_justify="left")
    for name in ("finding", "SUVmax", "slice", "volume", "presence"):
        table.add_column(name, justify="left" if name == "finding" else "right")
    for row in rows:
        suv = "-" if row["suv_measured"] is None else f"{row['suv_measured']:.2f}"
        at = "-" if row["slice_measured"] is None else str(row["slice_measured"])
        suv += f" ({row['suv_reported']:g})" if row["suv_reported"] is not None else ""
        at += f" ({row['slice_reported']})" if row["slice_reported"] is not None else ""
        volume = f"{row['volume_ml']:.1f} ml" if row["found"] else "-"
        presence = "-" if row["presence"] is None else f"{row['presence']:.2f}"
        table.add_row(row["finding_id"], suv, at, volume, presence)
    console.print(table)
    for row in rows:
        if row["problem"] is not None:
            console.print(f"{row['finding_id']}: {row['problem']}; the model was not asked.", style="yellow")
        elif not row["found"]:
            console.print(f"{row['finding_id']}: the model does not see what this sentence says; its mask is empty.")
    for run in unseen:
        first, last = run["slices"]
        console.print(f"slices {first} to {last} lie outside the model's grid and were not looked at.", style="yellow")
    console.print(f"  {out / 'overview.png'}", highlight=False, soft_wrap=True)
