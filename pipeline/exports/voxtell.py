"""VoxTell's fine-tuning format: an nnU-Net raw data set in RAS+, read by nnU-Net's reorienting reader; and prompts.

VoxTell (Rokuss et al., arXiv 2511.11450; package voxtell 0.1.2) fine-tunes its image encoder inside nnU-Net:
`nnUNetv2_plan_and_preprocess`, then `voxtell-finetune`. It was trained on RAS images of one reader, which dataset.json
names here. Its text-prompted predictor takes a jobs file of images and prompts, lower case, with each image; that is
written for every part, and the mask of each prompt lies beside it, so that a prompted model can be tuned or scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from petground.pipeline.exports.layout import CaseFiles, Layout, Release, Released
from petground.pipeline.exports.nnunet import nnunet_files, write_dataset
from petground.pipeline.files import write_json

__all__ = ["LAYOUT"]

READER = "NibabelIOWithReorient"
JOBS = {"train": "jobs_train.json", "val": "jobs_val.json", "test": "jobs_test.json"}


def _files(case: str, split: str, findings: Sequence[str], ct: bool) -> CaseFiles:
    base = nnunet_files(case, split, findings, ct)
    end = "Ts" if split == "test" else "Tr"
    return CaseFiles(base.pet, base.ct, base.union, {f: f"prompts{end}/{case}/{f}.nii.gz" for f in findings})


def _index(release: Release) -> list[str]:
    """Jobs files as `voxtell-predict --jobs` takes them (run it in the data set's folder), prompts.json, and nnU-Net's.

    A prompt that two findings of an exam share is one job, and prompts.json lists all its masks.
    """
    written = write_dataset(release, overwrite_image_reader_writer=READER)
    for split, name in JOBS.items():
        cases = release.of(split)
        write_json(release.root / name, [{"image": case.files.pet, "prompts": _prompts(case)} for case in cases])
    write_json(release.root / "prompts.json", {split: [_told(case) for case in release.of(split)] for split in JOBS})
    return [*written, *JOBS.values(), "prompts.json"]


def _prompts(case: Released) -> list[str]:
    return list(dict.fromkeys(_prompt(lesion.prompt) for lesion in case.exam.lesions))


def _told(case: Released) -> dict[str, Any]:
    masks: dict[str, list[str]] = {}
    for lesion in case.exam.lesions:
        masks.setdefault(_prompt(lesion.prompt), []).append(case.files.masks[lesion.finding_id])
    return {
        "case": case.case,
        "images": [path for path in (case.files.pet, case.files.ct) if path],
        "prompts": [{"prompt": prompt, "masks": paths} for prompt, paths in masks.items()],
    }


def _prompt(sentence: str) -> str:
    """Lower case in one line: VoxTell was trained on lower case and looks its prompts up so."""
    return " ".join(sentence.lower().split())


LAYOUT = Layout(
    words=True,
    upright=True,
    only_ct=True,
    files=_files,
    index=_index,
    indices=("dataset.json", "splits_final.json", "cases.csv", *JOBS.values(), "prompts.json"),
    about="nnU-Net raw in RAS+ for voxtell-finetune, with prompts and a mask for each",
)
