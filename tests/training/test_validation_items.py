"""What validates: from whom its absent sentences are, how much is held at a time, in which precision it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from patch_work import SPEC, make_work
from small_fit import small_flags

from petground.training import predict
from petground.training.cli import main
from petground.training.data import GroundingData
from petground.training.grid import GridSpec
from petground.training.module import GroundingModule

FIXED = GridSpec((16.0, 16.0, 16.0), (24, 12, 20))


def _data(work: Path, grid: GridSpec, **more: float) -> GroundingData:
    data = GroundingData(work, **more)  # type: ignore[arg-type]
    data.grid = grid
    data.prepare_data()
    data.setup("validate")
    return data


def test_sentences_of_the_test_are_not_asked_in_validation(tmp_path: Path) -> None:
    data = _data(make_work(tmp_path / "work", exams=8), FIXED, validation_fraction=0.25, test_fraction=0.25)
    kept = {id(example) for exam in data.split["test"] for example in data.exams[exam].examples}
    assert kept
    (loader,) = data.val_dataloader()
    for dataset in (loader.dataset, data.train_dataloader().dataset):
        pool = {id(example) for example in dataset._pool}  # type: ignore[attr-defined]
        assert pool
        assert not pool & kept


@pytest.mark.parametrize("grid", [FIXED, SPEC], ids=["whole", "patches"])
def test_one_validating_exam_is_loaded_ahead_and_in_half_precision(grid: GridSpec, patch_work: Path) -> None:
    data = _data(patch_work, grid, validation_fraction=0.25, workers=4)
    (loader,) = data.val_dataloader()
    assert (loader.num_workers, loader.prefetch_factor) == (1, 1)
    assert loader.dataset[0]["target"].dtype == torch.float16
    assert data.train_dataloader().num_workers == 4
    assert data.train_dataloader().dataset[0, 0]["target"].dtype == torch.float32


@pytest.mark.parametrize(("precision", "wanted"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_answers_are_worked_out_in_the_precision_of_the_training(
    precision: str, wanted: torch.dtype, patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = {"data__validation_fraction": 0, "trainer__max_epochs": 1, "trainer__limit_train_batches": 1}
    assert main(small_flags(patch_work, tmp_path / "run", **flags, trainer__precision=precision)) == 0
    module = GroundingModule.load_from_checkpoint(tmp_path / "run/checkpoints/last.ckpt", map_location="cpu")
    monkeypatch.setattr(predict, "native_bf16", lambda device: True)
    found: list[torch.dtype] = []
    encode = module.net.encode
    monkeypatch.setattr(module.net, "encode", lambda image: found.append((out := encode(image))[0].dtype) or out)
    module.predict(torch.rand(2, 24, 12, 20).numpy(), ["Avid left adrenal lesion."])
    assert found == [wanted]
