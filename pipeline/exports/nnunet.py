"""nnU-Net's raw format: DatasetXXX_Name/{imagesTr,labelsTr,imagesTs,labelsTs}, dataset.json, splits_final.json.

One case per exam, channels PET [SUVbw] and CT [HU], one class: every lesion that has a mask. Lesions that the report
tells of but that have no outline to trust are nnU-Net's `ignore` label: no loss is taken there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from petground.labeling.errors import ConfigError
from petground.pipeline.exports.layout import CaseFiles, Layout, Release
from petground.pipeline.files import write_csv, write_json

__all__ = ["LAYOUT", "dataset_json", "folds_of", "nnunet_files", "write_dataset"]

LESION, IGNORE = 1, 2
CHANNELS = {"0": "PET, SUVbw in g/ml", "1": "CT, HU; -1024 outside of the scan"}
# nnU-Net picks the normalisation by the channel's name: "CT" by the data set's own intensities, any other name by each
# image's mean and deviation, "noNorm" not at all (nnunetv2 map_channel_name_to_normalization).
PET_NAMES = {"image": "PET", "dataset": "CT", "none": "noNorm"}


def nnunet_files(case: str, split: str, findings: Sequence[str], ct: bool) -> CaseFiles:
    """Folders imagesTr and labelsTr for who trains and validates, imagesTs and labelsTs for the test."""
    end = "Ts" if split == "test" else "Tr"
    return CaseFiles(
        pet=f"images{end}/{case}_0000.nii.gz",
        ct=f"images{end}/{case}_0001.nii.gz",
        union=f"labels{end}/{case}.nii.gz",
    )


def dataset_json(release: Release, **more: Any) -> dict[str, Any]:
    """nnU-Net's description of the data set; keys that it does not know are for people."""
    options = release.options
    training = [case for case in release.cases if case.split != "test"]
    labels = {"background": 0, "lesion": LESION}
    if any(case.ignored_voxels for case in release.cases):
        labels["ignore"] = IGNORE
    return {
        "channel_names": {"0": PET_NAMES[options.pet_normalization], "1": "CT"},
        "labels": labels,
        "numTraining": len(training),
        "numTest": len(release.cases) - len(training),
        "file_ending": ".nii.gz",
        **more,
        "name": options.dataset,
        "channels": CHANNELS,
        "licence": options.licence,
        "converted_by": f"petground {release.version}",
    }


def folds_of(release: Release) -> list[dict[str, list[str]]]:
    """nnU-Net's splits_final.json: fold 0 validates on the release's own validating cases, the others on the rest.

    Over all folds every case of imagesTr validates exactly once; a patient is never on both sides of a fold.
    """
    training = [case for case in release.cases if case.split != "test"]
    folds = [
        {
            "train": sorted(case.case for case in training if case.fold != fold),
            "val": sorted(case.case for case in training if case.fold == fold),
        }
        for fold in range(release.folds)
    ]
    return [fold for fold in folds if fold["train"] and fold["val"]]


def write_dataset(release: Release, **more: Any) -> list[str]:
    """dataset.json, splits_final.json and cases.csv; nnU-Net copies the splits when it plans."""
    if not any(case.split != "test" for case in release.cases):
        raise ConfigError("no case is left to train on", fix="give train a larger share in --split")
    write_json(release.root / "dataset.json", dataset_json(release, **more))
    if folds := folds_of(release):  # one case alone cannot be divided: nnU-Net's own rule then
        write_json(release.root / "splits_final.json", folds)
    rows = [
        {
            "case": case.case,
            "split": case.split,
            "fold": case.fold if case.split != "test" else None,
            "tracer": case.exam.tracer,
            "lesions": len(case.exam.lesions),
            "not_outlined": case.exam.untold,
            "ignored_voxels": case.ignored_voxels,
        }
        for case in release.cases
    ]
    write_csv(release.root / "cases.csv", rows)
    return ["dataset.json", *(["splits_final.json"] if folds else []), "cases.csv"]


LAYOUT = Layout(
    words=False,
    upright=False,
    only_ct=True,
    files=nnunet_files,
    index=write_dataset,
    indices=("dataset.json", "splits_final.json", "cases.csv"),
    about="one case per exam, all its lesions one class; check with nnUNetv2_plan_and_preprocess",
)
