"""MONAI's datalist (the Decathlon's JSON): one item per sentence, with the image's channels and the sentence's mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from petground.pipeline.exports.layout import CaseFiles, Layout, Release, Released, lesion_row
from petground.pipeline.files import write_json

__all__ = ["LAYOUT"]

NUMBERS = ("suv_reported", "suv_measured", "slice_reported", "volume_ml", "confidence")
KEYS = {"train": "training", "val": "validation", "test": "test"}


def _files(case: str, split: str, findings: Sequence[str], ct: bool) -> CaseFiles:
    return CaseFiles(
        pet=f"images/{case}/pet.nii.gz",
        ct=f"images/{case}/ct.nii.gz",
        union=f"labels/{case}/lesions.nii.gz",
        masks={f: f"labels/{case}/{f}.nii.gz" for f in findings},
    )


def _index(release: Release) -> list[str]:
    """datalist.json: an item per sentence; datalist_lesions.json: an item per exam, all lesions in one mask.

    A part without cases has no key: MONAI cannot read an empty "test".
    """
    for name, items in (("datalist.json", _sentences), ("datalist_lesions.json", _exams)):
        parts = {key: [item for case in release.of(split) for item in items(case)] for split, key in KEYS.items()}
        head = {
            "name": "petground sentences" if items is _sentences else "petground lesions",
            "description": "PET/CT exams with weak lesion masks grown from their reports; research use only",
            "licence": release.options.licence,
            "release": f"petground {release.version}",
            "tensorImageSize": "3D",
            "modality": {"0": "PET (SUVbw)", "1": "CT (HU)"},
            "labels": {"0": "background", "1": "lesion"} | ({"2": "ignore"} if items is _exams else {}),
            "numTraining": len(parts["training"]),
            "numValidation": len(parts["validation"]),
            "numTest": len(parts["test"]),
        }
        write_json(release.root / name, head | {key: found for key, found in parts.items() if found})
    return ["datalist.json", "datalist_lesions.json"]


def _sentences(case: Released) -> list[dict[str, Any]]:
    return [
        {
            "image": _image(case),
            "label": case.files.masks[lesion.finding_id],
            **_filled(lesion_row(case, number)),
            **_fold(case),
        }
        for number, lesion in enumerate(case.exam.lesions)
    ]


def _exams(case: Released) -> list[dict[str, Any]]:
    head = {"image": _image(case), "label": case.files.union, "case": case.case, "tracer": case.exam.tracer or ""}
    return [head | {"lesions": len(case.exam.lesions), "not_outlined": case.exam.untold} | _fold(case)]


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """What is not known is empty words, -1 for numbers, or no key where no item knows it: collating needs values."""
    known = {key: value for key, value in row.items() if key != "patient" or value is not None}
    return {k: v if v is not None else -1 if k in NUMBERS else "" for k, v in known.items()}


def _image(case: Released) -> list[str]:
    return [path for path in (case.files.pet, case.files.ct) if path]


def _fold(case: Released) -> dict[str, int]:
    """For tools that read folds (Auto3DSeg); the test has none."""
    return {} if case.split == "test" else {"fold": case.fold}


LAYOUT = Layout(
    words=True,
    upright=False,
    only_ct=True,
    files=_files,
    index=_index,
    indices=("datalist.json", "datalist_lesions.json"),
    about="one item per sentence: image [PET, CT], label, sentence",
)
