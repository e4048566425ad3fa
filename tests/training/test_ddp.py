"""Two processes (gloo, on the CPU) learn what one does with twice the exams in a step, from one cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_fit import logged, small_flags

from petground.labeling.errors import ConfigError
from petground.pipeline.nifti import read_nifti, write_nifti
from petground.training.cli import main
from petground.training.data import GroundingData
from petground.training.dataset import EpochSampler, ShareSampler
from petground.training.grid import GridSpec


@pytest.mark.parametrize(("length", "processes", "step"), [(10, 2, 2), (11, 3, 1), (7, 2, 3), (4, 1, 4)])
def test_together_the_processes_take_the_exams_of_one(length: int, processes: int, step: int) -> None:
    for epoch in (0, 3):
        one = EpochSampler(length, seed=5, step=processes * step)
        shares = [EpochSampler(length, 5, rank=rank, processes=processes, step=step) for rank in range(processes)]
        for sampler in (one, *shares):
            sampler.set_epoch(epoch)
        whole, parts = list(one), [list(share) for share in shares]
        assert {len(part) for part in parts} == {len(shares[0])} == {len(whole) // processes}
        for start in range(0, len(parts[0]), step):
            taken = [pair for part in parts for pair in part[start : start + step]]
            assert taken == whole[start * processes : start * processes + len(taken)]
            assert {pair[0] for pair in taken} == {epoch}


@pytest.mark.parametrize(("length", "processes"), [(5, 2), (1, 3), (6, 3), (0, 2)])
def test_every_exam_validates_once_and_no_process_waits(length: int, processes: int) -> None:
    shares = [list(ShareSampler(length, rank=rank, processes=processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(n for share in shares for n in share if n >= 0) == list(range(length))


def _start(flags: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PL_TORCH_DISTRIBUTED_BACKEND": "gloo", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "petground.pipeline.cli", "train", *flags],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


TWO: dict[str, Any] = {"trainer__devices": 2, "trainer__strategy": "ddp", "data__exams_per_step": 1}


MOH = {"model__net__attention": json.dumps({"name": "moh", "num_heads": 2, "loss_weight": 0.1})}  # of a batch's mean
# its guess learns by its own loss alone; 32 voxels: of more than 64 it draws some, each process its own
SPARSIFINER: dict[str, Any] = {
    "model__net__attention": json.dumps({"name": "sparsifiner", "keep": 8, "stages": [3]}),
    "model__net__features": "[4,4,4,4,8]", "model__grid__shape_zyx": "[32,16,32]",
}  # fmt: skip


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param({}, id="plain"),
        pytest.param(MOH, id="moh", marks=pytest.mark.slow),
        pytest.param(SPARSIFINER, id="sparsifiner", marks=pytest.mark.slow),
    ],
)
def test_two_processes_give_the_losses_of_one(blocks: dict[str, Any], patch_work: Path, tmp_path: Path) -> None:
    """Two exams train and two validate; the numbers of their lesions differ."""
    # SGD: Adam would make steps of full size of the rounding in gradients that are zero, of biases before a norm
    more: dict[str, Any] = {
        "data__validation_fraction": 0.5, "trainer__max_epochs": 3, "model__optimizer__name": "sgd", **blocks,
    }  # fmt: skip
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(small_flags(patch_work, alone, **more, data__exams_per_step=2)) == 0
    cached = {file.name: file.stat().st_mtime_ns for file in (patch_work / "cache").rglob("*.npz")}
    assert len(cached) == 4
    done = _start(small_flags(patch_work, both, **more, **TWO), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = alone / "version_0", both / "version_0"
    assert sorted(logged(one)) == [0, 1, 2]
    assert logged(two) == pytest.approx(logged(one), rel=1e-5)
    for name in ("val/loss", "val/f1"):
        assert logged(two, name) == pytest.approx(logged(one, name), rel=1e-4)
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (alone, both)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-6)
    records = [json.loads((folder / "run.json").read_text()) for folder in (one, two)]
    assert [record["devices"] for record in records] == [1, 2]
    assert [record["exams_per_step"] for record in records] == [2, 2]
    assert records[0]["data"] == records[1]["data"]
    assert {file.name: file.stat().st_mtime_ns for file in (patch_work / "cache").rglob("*.npz")} == cached
    assert [folder.name for folder in both.iterdir() if folder.name.startswith("version")] == ["version_0"]


@pytest.mark.slow
def test_two_processes_go_on_within_an_epoch_where_one_would(patch_work: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "data__validation_fraction": 0, "model__optimizer__name": "sgd", "model__optimizer__schedule": "constant",
        "model__optimizer__warmup_steps": 0,
    }  # fmt: skip
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(small_flags(patch_work, alone, **more, data__exams_per_step=2)) == 0
    for way in ({"trainer__max_steps": 3}, {"ckpt_path": "last"}):  # the fourth step ends the second epoch
        done = _start(small_flags(patch_work, both, **more, **TWO, **way), tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
    first, rest = logged(both / "version_0"), logged(both / "version_1")
    assert (sorted(first), sorted(rest)) == ([0, 1, 2], [3])
    assert first | rest == pytest.approx(logged(alone / "version_0"), rel=1e-5)


SLOTS: dict[str, dict[str, Any]] = {
    "fusion": {"model__net__fusion": {"name": "lxmert_cross", "pool": 4}},
    "attention": {"model__net__attention": {"name": "sparsifiner", "keep": 8}},
    "token_reduction": {
        "model__net__attention": {"name": "softmax"},
        "model__net__token_reduction": {"name": "dyvte_exit", "hidden": 8},
    },
    "mixer": {"model__net__mixer": {"name": "conv_glu"}},
    "presence": {
        "model__net__presence": True, "model__net__coarse_heads": True, "model__loss__presence": 0,
        "model__net__features": [4, 8, 8], "model__net__fusion_stages": [0, 1],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "slots",
    [
        pytest.param(["fusion", "token_reduction", "mixer"], id="together"),
        *(pytest.param([slot], id=slot, marks=pytest.mark.slow) for slot in SLOTS),
    ],
)
def test_two_processes_train_blocks_of_which_parameters_have_no_gradient(
    slots: list[str], patch_work: Path, tmp_path: Path
) -> None:
    """The fusion's last words go nowhere, and nothing trains the exit's routers; a loss of its own the guess."""
    blocks = {flag: json.dumps(block) for slot in slots for flag, block in SLOTS[slot].items()}
    more = {**TWO, **blocks, "data__validation_fraction": 0, "trainer__max_epochs": 1}
    done = _start(small_flags(patch_work, tmp_path / "run", **more), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(logged(tmp_path / "run" / "version_0")) == [0, 1]  # the second step is where it would stop


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_all_processes_and_names_the_exam(patch_work: Path, tmp_path: Path) -> None:
    path = patch_work / "exams" / "e1" / "pet.nii.gz"
    pet = read_nifti(path, "SUVbw")
    spoilt = pet.array.astype(np.float32)
    spoilt[20, 14, 30] = np.nan
    write_nifti(path, pet.like(spoilt, "SUVbw"))
    done = _start(small_flags(patch_work, tmp_path / "run", data__validation_fraction=0, **TWO), tmp_path)
    assert done.returncode != 0
    assert "e1: " in done.stderr
    assert not {name for name in ("e0: ", "e2: ", "e3: ") if name in done.stderr}


def test_fewer_exams_than_devices_is_told(patch_work: Path) -> None:
    data = GroundingData(patch_work, validation_fraction=0.75)
    data.grid = GridSpec((16.0, 16.0, 16.0), (24, 12, 20))
    data.prepare_data()
    data.setup("validate")
    data._process = lambda: (0, 2)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="devices"):
        data.train_dataloader()
