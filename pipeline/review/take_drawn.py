"""Outlines that physicians redrew, taken into WORK/edited: each is checked, measured, kept with where it came from."""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from petground.labeling.errors import GeometryError, InputError, PetgroundError
from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.edited import Record, mask_file, record_of, told_hash, write_edited
from petground.pipeline.review.belongs import Known
from petground.pipeline.review.decisions import label_hash
from petground.pipeline.review.drawn import DrawnFile, masks_of, open_drawn
from petground.pipeline.review.load import Case, Item, Work, load_case

__all__ = ["Taken", "take_drawn"]

Key = tuple[str, str]
Tick = Callable[[str, int, int], None]


@dataclass
class Taken:
    """What became of the outlines. kept: those that are new, with their records; failures: (file, message)."""

    kept: dict[Key, Record] = field(default_factory=dict)
    hashes: dict[Key, str] = field(default_factory=dict)
    unchanged: int = 0
    others: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Claim:
    file: DrawnFile
    number: int
    finding_id: str


def take_drawn(
    work: Work,
    site: Site,
    drawn: Path,
    reviewer: str | None = None,
    tick: Tick = lambda stage, done, total: None,
) -> Taken:
    """Takes every outline of a file or folder that names its finding; what cannot be right is a failure of its own.

    An outline that is the same as the one that counts now is left alone, so a whole SEG can come back with one segment
    edited. Raises InputError when there is nothing at `drawn`, or no file of it holds outlines.
    """
    if not drawn.exists():
        raise InputError(f"nothing at {drawn}", fix="give a file or folder of DICOM SEG, RTSTRUCT or NIfTI")
    taken = Taken()
    claims = _claims(work, drawn, taken)
    if not claims and not taken.failures:
        raise InputError(f"no outlines in {drawn}", fix="give DICOM SEG, RTSTRUCT or NIfTI label maps")
    exams = {str(exam["exam_id"]): exam for exam in work.exams}
    for done, (exam_id, found) in enumerate(sorted(claims.items()), start=1):
        try:
            case = load_case(work, exams[exam_id], site)
        except PetgroundError as error:
            taken.failures += [(file.path.name, str(error)) for file in {c.file.path: c.file for c in found}.values()]
        else:
            _take_case(work, case, found, reviewer, taken)
        tick("outlines", done, len(claims))
    return taken


def _claims(work: Work, drawn: Path, taken: Taken) -> Mapping[str, list[_Claim]]:
    """Which outline of which file is for which finding, by exam. Two for one finding are failures, both."""
    known = Known(work, drawn)
    claims: dict[Key, list[_Claim]] = defaultdict(list)
    for path in _files(drawn):
        try:
            file = open_drawn(path)
            if file is None:
                taken.others += 1
                continue
            if not file.outlines:
                raise InputError("it holds no outline", fix="leave it out")
            exam_id = known.exam_of(file)
        except PetgroundError as error:
            taken.failures.append((path.name, str(error)))
            continue
        for outline in file.outlines:
            try:
                finding_id = known.finding_of(outline, exam_id, alone=len(file.outlines) == 1)
            except PetgroundError as error:
                taken.failures.append((path.name, str(error)))
            else:
                claims[exam_id, finding_id].append(_Claim(file, outline.number, finding_id))
    by_exam: dict[str, list[_Claim]] = defaultdict(list)
    for (exam_id, finding_id), several in claims.items():
        if len(several) == 1:
            by_exam[exam_id] += several
        else:
            where = ", ".join(f"{c.file.path.name} ({c.number})" for c in several)
            message = f"{exam_id}: {len(several)} outlines for {finding_id}: {where} (keep one)"
            taken.failures.append((several[0].file.path.name, message))
    return by_exam


def _files(drawn: Path) -> Iterator[Path]:
    if drawn.is_file():
        yield drawn
        return
    yield from sorted(path for path in drawn.rglob("*") if path.is_file() and not path.name.startswith("."))


def _take_case(work: Work, case: Case, claims: list[_Claim], reviewer: str | None, taken: Taken) -> None:
    items = {item.finding_id: item for item in case.items}
    masks: dict[Path, dict[int, Volume] | PetgroundError] = {}
    for claim in sorted(claims, key=lambda c: c.finding_id):
        path = claim.file.path
        if path not in masks:
            try:
                masks[path] = masks_of(claim.file, case.pet)
            except PetgroundError as error:
                masks[path] = error
                taken.failures.append((path.name, f"{case.exam_id}: {error}"))
        found = masks[path]
        if isinstance(found, PetgroundError):
            continue
        try:
            _take(work, case, items[claim.finding_id], claim, found[claim.number], reviewer, taken)
        except PetgroundError as error:
            taken.failures.append((path.name, f"{case.exam_id}/{claim.finding_id}: {error}"))


def _take(work: Work, case: Case, item: Item, claim: _Claim, mask: Volume, reviewer: str | None, taken: Taken) -> None:
    inside = mask.array > 0
    if not inside.any():
        raise GeometryError("its outline is empty", fix="say 'not a lesion' on the page, or leave it out")
    place = mask_file(work.folder, case.exam_id, item.finding_id)
    whole = not place.is_file() or record_of(place) is not None
    if whole and item.mask is not None and np.array_equal(item.mask.array > 0, inside):
        taken.unchanged += 1
        return
    record = Record(
        kind=claim.file.kind,
        source_sha256=claim.file.sha256,
        number=claim.number,
        reviewer=reviewer,
        creator=claim.file.creator,
        imported=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        petground=importlib.metadata.version("petground"),
        told=told_hash(item.finding),
        replaces=label_hash(item.finding, item.mask),
        **_measures(case, inside),
    )
    write_edited(work.folder, case.exam_id, item.finding_id, mask, record)
    taken.kept[case.exam_id, item.finding_id] = record
    taken.hashes[case.exam_id, item.finding_id] = label_hash(item.finding, mask)


def _measures(case: Case, inside: Any) -> dict[str, Any]:
    """Of the drawn voxels: SUVmax and where it is, its slice as the site counts, volume."""
    suv = np.where(inside, case.pet.array, -np.inf)
    i, j, k = (int(n) for n in np.unravel_index(int(suv.argmax()), suv.shape))
    try:
        number: int | None = slice_number(k, case.pet, case.site, case.ct)
    except GeometryError:  # counted by InstanceNumber or on a CT, which this exam does not have
        number = None
    return {
        "suv_measured": float(suv[i, j, k]),
        "slice_measured": number,
        "voxel_ijk": (i, j, k),
        "volume_ml": float(inside.sum()) * case.pet.voxel_ml,
    }
