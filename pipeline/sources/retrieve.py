"""One exam from a DICOMweb server into its folder: found, chosen, fetched, counted, and only then put in place."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pydicom
import requests

from petground.labeling.errors import InputError
from petground.pipeline.files import write_bytes
from petground.pipeline.sources.choose import Offered, choose_series
from petground.pipeline.sources.web import Server, attempt, connect, first

__all__ = ["STAGING", "By", "Exam", "fetch_exam"]

By = Literal["auto", "accession", "study"]
STAGING = ".fetch"  # beside the exams, so that nobody reads half an exam
FIELDS = ("ModalitiesInStudy", "StudyDate", "AccessionNumber")
AS_STORED = (("application/dicom", "*"),)
_UID = re.compile(r"[0-9]+(\.[0-9]+){3,}")


@dataclass(frozen=True)
class Exam:
    """What is looked for: accession number or StudyInstanceUID, and the day where the report tells it."""

    exam_id: str
    study_date: str | None = None


@dataclass(frozen=True)
class _Job:
    """What every step needs to know."""

    where: Server
    client: Any
    stop: threading.Event
    received: Callable[[int], None]

    def ask(self, call: Callable[[], Any]) -> Any:
        try:
            return attempt(self.where, self.stop, call)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise InputError("the server's answer is no DICOM JSON", reason="server_error") from None


def fetch_exam(
    where: Server,
    exam: Exam,
    out: Path,
    *,
    by: By = "auto",
    all_series: bool = False,
    dry_run: bool = False,
    stop: threading.Event | None = None,
    received: Callable[[int], None] = lambda size: None,
) -> dict[str, Any]:
    """Puts the exam's series into out/<exam_id>/<modality>_<number>_<digest>/; returns the row about it.

    What is there already is not fetched again: a series is complete when it has as many images as the server says.
    received: called with the bytes of each image. Raises InputError (reasons `no_study`, `several_studies`, `no_pet`,
    `incomplete`, `unreachable`, `not_allowed`, `server_error`), Stopped.
    """
    started = time.monotonic()
    sizes: list[int] = []

    def count(size: int) -> None:
        sizes.append(size)
        received(size)

    job = _Job(where, connect(where), stop or threading.Event(), count)
    study = _find_study(job, exam, by)
    chosen = choose_series(_offered(job, study))
    fetched = [series for series, why in chosen if why is None or all_series]
    if not any(series.modality == "PT" for series in fetched):
        left = "; ".join(f"{series.modality} series {series.number or '?'}: {why}" for series, why in chosen if why)
        raise InputError(f"no PET to fetch ({left or 'the study is empty'})", fix="--all-series", reason="no_pet")
    images = 0
    if not dry_run:
        staged = [(_series_folder(series), _stage(job, study, series, out, exam.exam_id)) for series in fetched]
        for name, stage in staged:
            _put_in_place(stage, out / exam.exam_id / name)
        shutil.rmtree(out / STAGING / exam.exam_id, ignore_errors=True)
        images = len(sizes)
    return {
        "exam_id": exam.exam_id,
        "status": "found" if dry_run else "ok",
        "reason": None,
        "detail": None,
        "study": study,
        "series": [
            {
                "uid": series.uid,
                "modality": series.modality,
                "number": series.number,
                "images": series.count,
                "folder": _series_folder(series) if series in fetched else None,
                "left_out": None if series in fetched else why,
            }
            for series, why in chosen
        ],
        "images": sum(series.count for series in fetched),
        "images_fetched": images,
        "bytes_fetched": sum(sizes),
        "seconds": round(time.monotonic() - started, 2),
    }


def _find_study(job: _Job, exam: Exam, by: By) -> str:
    """StudyInstanceUID of the exam. Of several studies the one with a PET, then the one of the report's day."""
    filters = []
    if by == "study" or (by == "auto" and _UID.fullmatch(exam.exam_id) and len(exam.exam_id) <= 64):
        filters.append(("StudyInstanceUID", "0020000D"))
    if by != "study":
        filters.append(("AccessionNumber", "00080050"))
    for keyword, tag in filters:
        found = job.ask(partial(job.client.search_for_studies, search_filters={keyword: exam.exam_id}, fields=FIELDS))
        # Servers match without regard to case, some to spaces; an exam must be the one that was meant.
        same = {uid: item for item in found if first(item, tag) == exam.exam_id and (uid := first(item, "0020000D"))}
        if len(same) > 1:
            with_pet = {uid: item for uid, item in same.items() if _has_pet(job, uid, item)}
            same = with_pet or same
        if len(same) > 1 and exam.study_date:
            day = exam.study_date.replace("-", "")[:8]
            same = {uid: item for uid, item in same.items() if first(item, "00080020") == day} or same
        if len(same) > 1:
            raise InputError(
                f"{len(same)} studies have this {keyword}",
                fix="give the StudyInstanceUID as exam_id, or the study_date with the report",
                reason="several_studies",
            )
        if same:
            return next(iter(same))
    raise InputError("the server has no such study", fix="is the exam_id its AccessionNumber?", reason="no_study")


def _has_pet(job: _Job, uid: str, item: Any) -> bool:
    modalities = (item.get("00080061") or {}).get("Value")
    if modalities:
        return "PT" in modalities
    return any(first(series, "00080060") == "PT" for series in job.ask(lambda: job.client.search_for_series(uid)))


def _offered(job: _Job, study: str) -> list[Offered]:
    offered: list[Offered] = []
    for item in job.ask(lambda: job.client.search_for_series(study, get_remaining=True)):
        uid, modality = first(item, "0020000E"), first(item, "00080060") or "?"
        if uid is None or any(series.uid == uid for series in offered):
            continue
        stated = first(item, "00201209")
        wanted = modality in ("PT", "CT")
        images = [] if stated and not wanted else _images(job, study, uid, limit=1 if stated else None)
        count = int(stated) if stated and stated.isdigit() else len(images)
        header = _header(job, study, uid, images[0]) if wanted and images else None
        offered.append(Offered(uid, modality, first(item, "00200011"), count, header))
    return offered


def _images(job: _Job, study: str, series: str, limit: int | None = None) -> list[str]:
    """SOPInstanceUIDs of a series."""

    def search() -> Any:
        remaining = {"limit": limit} if limit else {"get_remaining": True}
        return job.client.search_for_instances(study, series, **remaining)

    return list(dict.fromkeys(uid for item in job.ask(search) if (uid := first(item, "00080018"))))


def _header(job: _Job, study: str, series: str, image: str) -> Any:
    """One image's header; None where the server does not give one: then the series counts as worth fetching."""
    try:
        answer = job.ask(lambda: job.client.retrieve_instance_metadata(study, series, image))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.Dataset.from_json(answer[0] if isinstance(answer, list) else answer, lambda uri: b"")
    except InputError as error:
        if error.reason != "server_error":
            raise
    except Exception:  # whatever a vendor's JSON does to the decoder, it must not cost the exam
        pass
    return None


def _series_folder(series: Offered) -> str:
    number = re.sub(r"\D", "", series.number or "")[:6] or "0"
    modality = re.sub(r"[^A-Z]", "", series.modality.upper())[:4] or "XX"
    return f"{modality}_{number}_{hashlib.sha256(series.uid.encode()).hexdigest()[:8]}"


def _stage(job: _Job, study: str, series: Offered, out: Path, exam_id: str) -> Path:
    """Fetches what is missing of a series into the staging folder; returns it. Raises InputError when not complete."""
    name = _series_folder(series)
    place, stage = out / exam_id / name, out / STAGING / exam_id / name
    for leftover in stage.glob(".*.part"):
        leftover.unlink(missing_ok=True)

    def present() -> set[str]:
        return {file.stem for folder in (place, stage) if folder.is_dir() for file in folder.glob("*.dcm")}

    def bring() -> None:
        have = present()
        if not have:
            _keep(job, study, series, stage, None)
            return
        for image in _images(job, study, series.uid):  # some are here: one by one is less than all again
            if image not in have:
                _keep(job, study, series, stage, image)

    if len(present()) < series.count:
        attempt(job.where, job.stop, bring, progressed=lambda: len(present()))
        if len(present()) < series.count:
            bring()  # the answer was whole and still lacked images: ask for these by name, once
    if len(present()) < series.count:
        raise InputError(
            f"{len(present())} of the {series.count} images of {series.modality} series {series.number} came",
            fix="run again; what is there is kept",
            reason="incomplete",
        )
    return stage


def _keep(job: _Job, study: str, series: Offered, stage: Path, image: str | None) -> None:
    """Writes the images of a series, or one of them, as they come. Raises InputError (broken_off) for a cut answer."""
    for dataset in _datasets(job, study, series.uid, image):
        if job.stop.is_set():
            return
        uid = str(dataset.get("SOPInstanceUID", ""))
        if not re.fullmatch(r"[0-9A-Za-z._-]{1,128}", uid) or dataset.get("SeriesInstanceUID") != series.uid:
            raise InputError("the server sent an image that was not asked for", reason="server_error")
        content = io.BytesIO()
        dataset.save_as(content, enforce_file_format=True)
        write_bytes(stage / f"{uid}.dcm", content.getvalue())
        job.received(content.tell())


def _datasets(job: _Job, study: str, series: str, image: str | None) -> Iterator[Any]:
    """As stored, else as the server likes to send it: some refuse the wildcard for the transfer syntax."""

    def request(media: Any) -> Iterator[Any]:
        if image is None:
            return job.client.iter_series(study, series, media_types=media)
        media = media or ("application/dicom",)
        return iter([job.client.retrieve_instance(study, series, image, media_types=media)])

    try:
        try:
            answer = request(AS_STORED)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code not in (400, 406, 415):
                raise
            answer = request(None)
        yield from answer
    except requests.RequestException:
        raise
    except (ValueError, EOFError, KeyError, AttributeError, TypeError, NotImplementedError, OSError) as error:
        # A multipart answer that is cut, or a part that is no DICOM.
        raise InputError("the server's answer breaks off", reason="broken_off") from error


def _put_in_place(stage: Path, place: Path) -> None:
    if not stage.is_dir():
        return
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage, place)
        return
    for file in stage.glob("*.dcm"):
        os.replace(file, place / file.name)
