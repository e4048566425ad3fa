"""To which exam and finding of WORK an outline from elsewhere belongs: by what names it, never by where it lies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from petground.labeling.errors import InputError
from petground.pipeline.dicom.seg import tracking_uid
from petground.pipeline.review.drawn import DrawnFile, Outline
from petground.pipeline.review.load import Work, source_of
from petground.pipeline.review.page import file_name

__all__ = ["Known"]

_FINDING = re.compile(r"(?<![A-Za-z0-9])f\d{3,}(?![A-Za-z0-9])")
_NAME_IT = "name it by the finding's id, such as f001"


class Known:
    """The exams and findings that outlines may be for. root: the folder that the files were handed over in."""

    def __init__(self, work: Work, root: Path):
        self.work, self.root = work, root.resolve()
        ids = [str(exam["exam_id"]) for exam in work.exams]
        self._names = {file_name(exam_id): exam_id for exam_id in ids} | {exam_id: exam_id for exam_id in ids}

    @cached_property
    def series_of(self) -> Mapping[str, str]:
        """exam_id by the SeriesInstanceUID of its PET."""
        exams = [str(e["exam_id"]) for e in self.work.exams if e.get("pet_path")]
        uids = ((source_of(self.work.folder, exam_id).get("pet_series_uid"), exam_id) for exam_id in exams)
        return {uid: exam_id for uid, exam_id in uids if uid}

    def exam_of(self, file: DrawnFile) -> str:
        """By the series that the file refers to, else by its folder's or its own name; InputError when they disagree
        or neither tells."""
        by_series = {self.series_of[uid] for uid in file.series if uid in self.series_of} if file.series else set()
        by_name = self._named(file.path)
        if len(by_series) > 1:
            raise InputError(f"it refers to the PETs of {', '.join(sorted(by_series))}", fix="one exam per file")
        if by_series and by_name and by_name not in by_series:
            raise InputError(
                f"it is named for {by_name} and drawn on the PET of {by_series.pop()}", fix="put it under its own exam"
            )
        found = next(iter(by_series), by_name)
        if found is None:
            why = "refers to no PET series of WORK" if file.series else "is named for no exam of WORK"
            raise InputError(f"it {why}", fix="draw on the PET, or put the file into a folder named by the exam_id")
        return found

    def finding_of(self, outline: Outline, exam_id: str, *, alone: bool) -> str:
        """By tracking UID, else by the id in its name. Raises InputError when neither tells or they tell two, and when
        the report tells of no lesion there.

        alone: the file holds no other outline, which then needs no name where the exam has one finding.
        """
        ids = {str(row["finding_id"]) for row in self.work.of(exam_id).findings}
        series = source_of(self.work.folder, exam_id).get("pet_series_uid") if outline.tracking_uid else None
        tracked = {one for one in ids if series and tracking_uid(series, one) == outline.tracking_uid}
        told = tracked | _named_in(outline.words, exam_id)
        where = f"outline {outline.number}"
        if len(told) > 1:
            raise InputError(f"{where} is told to be {' and '.join(sorted(told))}", fix=_NAME_IT)
        drawable = {str(row["finding_id"]) for row in self.work.of(exam_id).findings if self.work.judged(row)}
        if not told and alone and len(drawable) == 1:
            return drawable.pop()
        if not told:
            raise InputError(f"{where} names no finding of {exam_id}", fix=_NAME_IT)
        found = told.pop()
        if found not in ids:
            raise InputError(
                f"{exam_id} has no finding {found}", fix="see findings.parquet; ids change with the report"
            )
        if found not in drawable:
            raise InputError(f"the report tells of no current lesion in {found}", fix="leave this outline out")
        return found

    def _named(self, path: Path) -> str | None:
        """The exam that the innermost folder named by one tells, or the file's name up to a separator.

        Raises InputError when they name two.
        """
        path = path.resolve()
        folder = self.root if self.root.is_dir() else self.root.parent
        folders = (folder.name, *path.relative_to(folder).parent.parts)
        stem = re.sub(r"(\.nii)?\.[A-Za-z]+$", "", path.name)
        starts = [stem[: match.start()] for match in re.finditer(r"[_. -]|$", stem)]
        found = [
            next((self._names[n] for n in reversed(names) if n in self._names), None) for names in (folders, starts)
        ]
        told = {exam_id for exam_id in found if exam_id is not None}
        if len(told) > 1:
            raise InputError(f"folder and file name two exams, {' and '.join(sorted(told))}", fix="rename one")
        return next(iter(told), None)


def _named_in(words: Sequence[str], exam_id: str) -> set[str]:
    """Finding ids in the words; one within the exam's own id counts only where there is no other."""
    bare = {one for word in words for one in _FINDING.findall(word.replace(exam_id, " "))}
    return bare or {one for word in words for one in _FINDING.findall(word)}
