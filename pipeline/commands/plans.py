"""`petground plans`: nnunetv2's own planner on an exported data set, for the network and patch of `model.plans`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from petground.labeling.errors import ConfigError, InputError, PetgroundError
from petground.pipeline.commands.options import spacing_option
from petground.pipeline.files import write_bytes, write_json

__all__ = ["plans"]

Planner = Literal[
    "nnUNetPlannerResEncM", "nnUNetPlannerResEncL", "nnUNetPlannerResEncXL", "ResEncUNetPlanner", "ExperimentPlanner"
]
_FOLDER = re.compile(r"Dataset(\d{3})_[A-Za-z0-9][A-Za-z0-9_-]*")
_NAME = "petgroundPlans"
_TOLD = 12  # last lines of the planner that are shown when it fails


def plans(
    dataset: Path,
    out: Path,
    planner: Planner = "nnUNetPlannerResEncM",
    gpu_memory_gb: float | None = None,
    spacing: str | None = None,
    workers: int | None = None,
) -> int:
    """Let nnU-Net plan network and patch for an exported data set.

    Runs nnunetv2's fingerprint extraction and planner on DATASET, which `petground export WORK --to nnunet` wrote, and
    copies the plans to OUT. Nothing is preprocessed and no nnUNet_* variable is needed. Train with them by
    `--model.plans.file OUT`; features, blocks, strides, kernels, spacing and patch are then nnU-Net's.

    Args:
        dataset: folder DatasetXXX_Name with dataset.json, imagesTr and labelsTr.
        out: the plans.json to write; dataset_fingerprint.json goes beside it.
        planner: nnU-Net's planner; ResEncM, L and XL are for GPUs of about 10, 24 and 40 GiB.
        gpu_memory_gb: plan for so much instead; text and several sentences come on top of what nnU-Net counts.
        spacing: voxel size in mm that the network sees, "3" or "3,3,3" (x, y, z); default: the median of the data.
        workers: processes that read the images; default: one per core that this job may use.
    """
    console = Console()
    match = _FOLDER.fullmatch(dataset.resolve().name)
    if match is None:
        raise ConfigError(f"'{dataset}' is no nnU-Net data set", fix="give its folder, DatasetXXX_Name in nnUNet_raw")
    _check(dataset)
    if gpu_memory_gb is not None and gpu_memory_gb <= 0:
        raise ConfigError(f"--gpu-memory-gb is {gpu_memory_gb:g}", fix="give a positive number")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}", fix="give 1 or more")
    with tempfile.TemporaryDirectory(prefix="petground-plans-") as scratch, console.status("nnU-Net is planning"):
        made, fingerprint = _run(
            dataset.resolve(), int(match[1]), Path(scratch), planner, gpu_memory_gb, spacing, workers
        )
    write_json(out, made)
    write_bytes(out.parent / "dataset_fingerprint.json", fingerprint)
    _show(console, out, made)
    return 0


def _check(dataset: Path) -> None:
    if not (dataset / "dataset.json").is_file():
        raise InputError(f"no dataset.json in {dataset}", fix="write the data set: petground export WORK --to nnunet")
    if not any((dataset / "imagesTr").glob("*_0000.*")):
        raise InputError(f"no training images in {dataset / 'imagesTr'}", fix="export again; see its data card")


def _run(
    dataset: Path,
    number: int,
    scratch: Path,
    planner: str,
    gpu_memory_gb: float | None,
    spacing: str | None,
    workers: int | None,
) -> tuple[dict[str, Any], bytes]:
    """The plans and the fingerprint's file; the planner runs in a process of its own, for it loads torch."""
    raw = scratch / "raw"  # this data set alone: another of the same number beside it is not ours to stumble over
    raw.mkdir()
    (raw / dataset.name).symlink_to(dataset, target_is_directory=True)
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-m"]
    command += ["nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "-d", str(number), "-pl", planner]
    command += ["--no_pp", "--no_pbar", "-npfp", str(workers), "-overwrite_plans_name", _NAME]
    if gpu_memory_gb is not None:
        command += ["-gpu_memory_target", f"{gpu_memory_gb:g}"]
    if spacing is not None:
        command += ["-overwrite_target_spacing", *(f"{mm:g}" for mm in reversed(spacing_option(spacing)))]
    folders = {f"nnUNet_{name}": str(scratch / name) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        command,
        env={**os.environ, **folders},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    made = scratch / "preprocessed" / dataset.name
    if done.returncode or not (made / f"{_NAME}.json").is_file():
        told = "\n".join(done.stdout.strip().splitlines()[-_TOLD:])
        raise PetgroundError(f"nnU-Net's planner ended with exit code {done.returncode}:\n{told}\n", case=dataset.name)
    return json.loads((made / f"{_NAME}.json").read_text()), (made / "dataset_fingerprint.json").read_bytes()


def _show(console: Console, out: Path, made: dict[str, Any]) -> None:
    table = Table(title=f"planned by {made['experiment_planner_used']}", title_justify="left")
    for column in ("configuration", "spacing [mm]", "patch", "features by stage"):
        table.add_column(column)
    for name, one in made["configurations"].items():
        if name.startswith("3d") and "architecture" in one:
            features = one["architecture"]["arch_kwargs"]["features_per_stage"]
            spacing = " x ".join(f"{mm:.2f}" for mm in one["spacing"])
            table.add_row(name, spacing, " x ".join(map(str, one["patch_size"])), " ".join(map(str, features)))
    console.print(table)
    console.print("train with them: petground train fit --config ours --data.work WORK", highlight=False)
    console.print(f"    --model.plans.file {out}", highlight=False, markup=False, soft_wrap=True)
