"""Every exam asked, one after the other: what is answered is kept until all is, and an exam that fails is named."""

from __future__ import annotations

import hashlib
import json
import pkgutil
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from petground.labeling.body import right_of_midline_mm
from petground.labeling.errors import InputError, PetgroundError
from petground.labeling.site import Site
from petground.labeling.volume import Unit, Volume, require_same_grid
from petground.pipeline.dates import iso_date
from petground.pipeline.files import read_json, sha256_of, write_bytes
from petground.pipeline.nifti import read_nifti
from petground.pipeline.progress import progress
from petground.pipeline.schemas import read_table
from petground.pipeline.settings_file import site_of_work
from petground.training.controls import Question
from petground.training.metrics import Component, Score, dice, missed, score_component
from petground.training.references import Reference

__all__ = ["Answered", "Asked", "answer_all"]

Asked = Mapping[str, Sequence[Question | None]]  # run -> what each reference is asked; None: there is no sentence


class Answered(NamedTuple):
    """answers: each run's score of every reference. outlines: how many exams' answers had the model's outline, or the
    PET's. failed: by exam why it could not be asked; the scores of its references tell nothing."""

    answers: dict[str, list[Score]]
    outlines: dict[str, int]
    failed: dict[str, str]


def answer_all(
    by: Any, who: Sequence[Any], work: Path, references: Sequence[Reference], asked: Asked, kept: Path, console: Console
) -> Answered:
    """An exam is read and encoded once for all its sentences. Raises the first error where every exam
    with a mask fails.

    who: what tells this grounder from others, beside its facts. kept: a folder for the answers of a run that is
    stopped; the next one by the same grounder, to the same questions of the same files, takes them from there. It is
    gone when all is answered.
    """
    files = {row["exam_id"]: row for row in read_table(work / "exams.parquet", "exams")}
    answers: dict[str, list[Score]] = {run: [missed()] * len(references) for run in asked}
    outlines: Counter[str] = Counter()
    failed: dict[str, PetgroundError] = {}
    site = site_of_work(work) or Site()
    by_exam: dict[str, list[int]] = {}
    for i, reference in enumerate(references):
        by_exam.setdefault(reference.exam_id, []).append(i)
    told = [*map(str, who), by.reads, {**by.facts}]
    with progress(console) as tick:
        for done, (exam_id, members) in enumerate(by_exam.items(), start=1):
            row = files[exam_id]
            if row["pet_path"] is not None:  # else the labelling run could not read it: its lesions are missed
                own = {i: references[i] for i in members}
                counted = site.for_exam(row["scanner"], iso_date(row["study_date"]))
                try:
                    file = kept / f"{_key(told, work, row, counted, own, asked)}.json"
                    found = read_json(file) or _told(by, work, row, counted, own, asked)
                except PetgroundError as error:
                    failed[exam_id] = error
                    continue
                write_bytes(file, json.dumps(found).encode())
                by.facts.update(found["facts"])
                outlines[found["facts"]["outline"]] += 1
                for run, n, score in found["scores"]:
                    answers[run][members[n]] = Score(**score)
            tick("exams", done, len(by_exam))
    if {one.exam_id for one in references if one.mask_path is not None} <= failed.keys():
        raise next(iter(failed.values()))
    shutil.rmtree(kept, ignore_errors=True)
    return Answered(answers, dict(outlines), {exam: str(error) for exam, error in failed.items()})


def _key(
    told: Sequence[Any],
    work: Path,
    row: Mapping[str, Any],
    site: Site,
    references: Mapping[int, Reference],
    asked: Asked,
) -> str:
    """Of all that an exam's answers and their scores depend on."""
    images = [_digest(work / row[name]) if row[name] else None for name in ("pet_path", "ct_path")]
    masks = [(one.key, one.suv, one.mask_path and _digest(one.mask_path)) for one in references.values()]
    questions = {run: [of[i] for i in references] for run, of in asked.items()}
    text = json.dumps([told, row["exam_id"], images, masks, questions, repr(site)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _digest(path: Path) -> str | None:
    """None: it is not there, which reading it tells in words."""
    return sha256_of(path) if path.is_file() else None


def _told(
    by: Any, work: Path, row: Mapping[str, Any], site: Site, references: Mapping[int, Reference], asked: Asked
) -> dict[str, Any]:
    """An exam's scores, (run, which of its references, score), and the grounder's facts after it."""
    case = row["exam_id"]
    pet = _read(work / row["pet_path"], "SUVbw", case)
    ct = _read(work / row["ct_path"], "HU", case) if row["ct_path"] else None
    place = {i: n for n, i in enumerate(references)}
    scores = [(run, place[i], asdict(one)) for run, i, one in _answer_exam(by, pet, ct, site, references, asked)]
    return {"scores": scores, "facts": dict(by.facts)}


def _answer_exam(
    by: Any, pet: Volume, ct: Volume | None, site: Site, references: Mapping[int, Reference], asked: Asked
) -> Iterator[tuple[str, int, Score]]:
    """(run, reference's number, score) of one exam; each distinct question is asked once, as `petground ground` asks.

    Without a presence of its own an answer's is 1, that of an empty one 0.
    """
    one = pkgutil.resolve_name("petground.pipeline.ground_by:Asked")
    voxels = {i: _reference_voxels(pet, reference) for i, reference in references.items()}
    runs: dict[Question, list[tuple[str, int]]] = {}
    for run, questions_of in asked.items():
        for i in references:
            question = questions_of[i]
            if question is not None:
                runs.setdefault(question, []).append((run, i))
    wanted = [one("", "", q.prompt, None, q.slice, series=q.series) for q in runs]
    case = next(iter(references.values())).exam_id
    answers = by.answers(pet, ct, site, wanted, case, lambda what, done, total: None)
    for question, answer in zip(runs, answers, strict=True):
        presence = float(answer.mask.any()) if answer.presence is None else answer.presence
        component = Component(answer.mask, presence)
        right_mm = None if answer.voxel_ijk is None else right_of_midline_mm(answer.voxel_ijk, pet, ct)
        for run, i in runs[question]:
            mask = _dense(voxels[i], pet)
            score = score_component(component, mask, pet.array, suv_reference=references[i].suv, voxel_ml=pet.voxel_ml)
            own = None if answer.marked is None or mask is None else dice(answer.marked, mask)
            yield run, i, replace(score, right_mm=right_mm, marked_dice=own)


def _dense(voxels: NDArray[np.int64] | None, pet: Volume) -> NDArray[np.bool_] | None:
    """One at a time: a whole body's is 100 MB."""
    if voxels is None:
        return None
    mask = np.zeros(pet.array.shape, dtype=np.bool_)
    mask.flat[voxels] = True
    return mask


def _reference_voxels(pet: Volume, reference: Reference) -> NDArray[np.int64] | None:
    """Flat voxel numbers; None: nothing is there."""
    if reference.mask_path is None:
        return None
    case = f"{reference.exam_id}/{reference.key}"
    mask = _read(reference.mask_path, "label", case)
    require_same_grid(pet, mask, case=case)
    if not mask.array.any():
        raise InputError("the reference mask is empty", case=case, fix="label this exam again")
    return np.flatnonzero(mask.array > 0)


def _read(path: Path, unit: Unit, case: str) -> Volume:
    try:
        return read_nifti(path, unit)
    except PetgroundError as error:
        error.case = error.case or case
        raise
