"""What is done for one exam, in a worker: its images read and converted, its findings matched and outlined.

An exam is decoded once: what was just read is labelled from memory, exactly as it would be from the files.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petground.labeling.finding import Candidate, Excluded, Finding
from petground.labeling.site import Site, site_to_mapping
from petground.labeling.suv_header import NO_FALLBACKS, SuvFallbacks
from petground.pipeline.dates import iso_date, require_same_day
from petground.pipeline.executors import guarded
from petground.pipeline.files import write_json
from petground.pipeline.organ_maps import NO_MAPS, OrganSource, organ_map, read_organs
from petground.pipeline.stage import content_hash, folder_hash, kept, run_stage

if TYPE_CHECKING:
    from petground.labeling.volume import Volume

__all__ = ["CODE", "exam_case", "ingest_case", "ingest_is_current", "label_case", "label_key"]

# What each stage's outcome depends on besides its input: results kept by other code are made anew.
CODE = {
    "ingest": (
        "petground.labeling",
        *(
            f"petground.pipeline.{name}"
            for name in ("dicom", "read", "nifti", "suv_range", "geometry", "dates", "patients", "tracers")
        ),
    ),
    "label": ("petground.labeling",),
}
Images = dict[str, "Volume"]
"""pet [SUVbw] and, where there is one, ct [HU], as they are on disk."""


@dataclass(frozen=True)
class Told:
    """What the export says of an exam beside its report, as it is written. What it does not say the images may.

    fallbacks: what may stand in where the PET's header is silent.
    """

    scanner: str | None = None
    date: str | None = None
    tracer: str | None = None
    fallbacks: SuvFallbacks = NO_FALLBACKS


@dataclass(frozen=True)
class Around:
    """The organ map of an exam: file, digest, version of its ids; and the tracer, which organs take up normally."""

    path: Path
    digest: str
    version: int | None
    tracer: str | None


def exam_case(
    source: Path,
    out: Path,
    exam_id: str,
    codes: Mapping[str, str],
    positive: Mapping[str, Finding],
    site: Site,
    told: Told = Told(),
    organs: OrganSource = NO_MAPS,
) -> dict[str, Any]:
    """Reads one exam, then labels its positive findings {finding_id: finding} by the conventions that hold for it.

    Without any it is read alone. Returns {"failed": None or (stage, reason, detail)}; what was made lies in out/exams
    and out/labels.
    """
    images: Images = {}
    args = (source, out / "exams" / exam_id, exam_id, codes["ingest"], images, told.fallbacks)
    ingested = guarded(ingest_case, exam_id, args)
    if ingested.reason is not None:
        return _failed("ingest", ingested)
    exam = ingested.value
    site = site.for_exam(told.scanner or exam.get("scanner"), iso_date(told.date) or exam.get("study_date"))
    day = guarded(require_same_day, exam_id, (told.date, exam.get("study_date"), site))
    if day.reason is not None:
        return _failed("ingest", day)
    if not positive:  # its images were asked for, and that is all
        return {"failed": None}
    found = guarded(organ_map, exam_id, (organs, source, out, exam_id, exam))
    if found.reason is not None:
        return _failed("match", found)
    tracer = told.tracer or exam.get("tracer")
    around = None if found.value is None else Around(found.value[0], found.value[1], organs.version, tracer)
    key = label_key(codes["label"], site, exam["key"], positive, around)
    labelled = guarded(label_case, exam_id, (out, exam_id, key, dict(positive), site, exam, images, around))
    return {"failed": None} if labelled.reason is None else _failed("match", labelled)


def _failed(stage: str, outcome: Any) -> dict[str, Any]:
    if outcome.reason == "disk_full":
        raise OSError(28, "No space left on device")
    return {"failed": (stage, outcome.reason, outcome.detail)}


def ingest_key(code: str, content: str, fallbacks: SuvFallbacks = NO_FALLBACKS) -> str:
    return content_hash(["ingest", code, content, asdict(fallbacks)])


def label_key(code: str, site: Site, ingest: str, positive: Mapping[str, Finding], around: Around | None = None) -> str:
    """Name of a labelling: the hash of code, site, the images' and the organ map's keys and what the report says."""
    organs = None if around is None else [around.digest, around.version, around.tracer]
    return content_hash(
        ["label", code, site_to_mapping(site), ingest, organs, {name: asdict(f) for name, f in positive.items()}]
    )


def ingest_is_current(source: Path, folder: Path, code: str, fallbacks: SuvFallbacks = NO_FALLBACKS) -> str | None:
    """The key of an exam that was read, by this code and from these files; None when it must be read (again).

    Looks at names, sizes and times only: a file that was touched counts as changed until its bytes are compared.
    """
    record = kept(folder, thorough=True)
    if record is None or not source.is_dir():
        return None
    files = folder_hash(source, record.get("source"), listing_only=True)
    key = ingest_key(code, files["content"], fallbacks)
    return key if files["content"] and record.get("key") == key else None


def ingest_case(
    source: Path,
    folder: Path,
    exam_id: str,
    code: str,
    images: Images | None = None,
    fallbacks: SuvFallbacks = NO_FALLBACKS,
) -> dict[str, Any]:
    """Reads one exam, writes pet.nii.gz [SUVbw] and ct.nii.gz [HU] each on its own grid; returns the exam's values.

    images: takes the volumes when they were read now. fallbacks: what may stand in where the PET's header is silent.
    """
    from petground.pipeline.dicom.origin import origin
    from petground.pipeline.nifti import as_stored, write_nifti
    from petground.pipeline.read import read_exam

    earlier = kept(folder) or {}
    files = folder_hash(source, earlier.get("source"))
    key = ingest_key(code, files["content"], fallbacks)

    def work(part: Path) -> dict[str, Any]:
        exam = read_exam(source, case=exam_id, fallbacks=fallbacks)
        made = {"pet": exam.pet} if exam.ct is None else {"pet": exam.pet, "ct": exam.ct}
        for name, volume in made.items():
            # A CT is noise: packing it takes longer than all the rest together and saves less than half of the room.
            write_nifti(part / f"{name}.nii.gz", volume, packed=name != "ct")
            if images is not None:
                images[name] = as_stored(volume)
        return {
            "source": exam.source,
            "ct": exam.ct is not None,
            "suv_rule": exam.suv_rule,
            "suv_factor": exam.suv_factor,
            "pet_series": exam.pet_series,
            "ct_series": exam.ct_series,
            "slices": exam.pet.shape[2],
            "patient": None if exam.patient is None else exam.patient._asdict(),
            **origin(exam.pet_files),
        }

    value, _ = run_stage(folder, key, work, also={"source": files})
    # Where the files lie is no part of the result: the exams may have been moved since.
    place = {"source": value["source"], "folder": str(source.resolve()), "pet_series_uid": value["pet_series_uid"]}
    write_json(folder / "source.json", place)
    return {**value, "key": key}


def label_case(
    out: Path,
    exam_id: str,
    key: str,
    positive: dict[str, Finding],
    site: Site,
    exam: dict[str, Any],
    images: Images | None = None,
    around: Around | None = None,
) -> dict[str, Any]:
    """Matches and outlines one exam's findings; masks are written beside each other, on the PET grid.

    images: the exam's volumes where they are in memory; otherwise they are read from out/exams.
    """
    import numpy as np

    from petground.labeling.label import label_exam
    from petground.pipeline.nifti import read_nifti, write_nifti

    def work(part: Path) -> dict[str, Any]:
        loaded = images or {}
        folder = out / "exams" / exam_id
        pet = loaded.get("pet") or read_nifti(folder / "pet.nii.gz", "SUVbw")
        ct = (loaded.get("ct") or read_nifti(folder / "ct.nii.gz", "HU")) if exam["ct"] else None
        rows = []
        organs = None if around is None else read_organs(around.path, around.version)
        tracer = None if around is None else around.tracer
        told = list(positive.values())
        labels = label_exam(pet, told, site=site, ct=ct, organs=organs, tracer=tracer, case=exam_id)
        for (finding_id, _), label in zip(positive.items(), labels, strict=True):
            row: dict[str, Any] = {
                "finding_id": finding_id,
                "candidates": [_candidate(rank, c) for rank, c in enumerate(label.candidates)],
            }
            if isinstance(label, Excluded):
                row |= {"reason": label.reason, "detail": label.detail}
            else:
                write_nifti(part / f"{finding_id}.nii.gz", pet.like(label.mask.astype(np.uint8), "label"))
                i, j, k = (int(v) for v in label.voxel_ijk)
                row["label"] = {
                    "suv_measured": float(label.suv_measured),
                    "slice_measured": int(label.slice_measured),
                    "voxel_i": i,
                    "voxel_j": j,
                    "voxel_k": k,
                    "volume_ml": float(label.volume_ml),
                    "confidence": float(label.confidence),
                    "method": label.method,
                    "why": label.why,
                    "threshold": float(label.threshold),
                    "warnings": "; ".join(label.warnings),
                    "provenance": json.dumps(
                        {
                            "petground": importlib.metadata.version("petground"),
                            "label": key,
                            "ingest": exam["key"],
                            "site": site_to_mapping(site),
                            "organs": None if around is None else around.digest,
                        },
                        sort_keys=True,
                    ),
                }
            rows.append(row)
        return {"findings": rows}

    return run_stage(out / "labels" / exam_id, key, work)[0]


def _candidate(rank: int, candidate: Candidate) -> dict[str, Any]:
    i, j, k = (int(v) for v in candidate.voxel_ijk)
    return {
        "rank": rank,
        "voxel_i": i,
        "voxel_j": j,
        "voxel_k": k,
        "suv": float(candidate.suv),
        "score": float(candidate.score),
        "slice_distance": int(candidate.slice_distance),
        "evidence": json.dumps({name: float(v) for name, v in candidate.evidence.items()}, sort_keys=True),
    }
