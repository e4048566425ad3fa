"""Checkpoint files: whole or not there, best.ckpt the best wherever the run lies, words for files that are none."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_fit import small_flags

from petground.labeling.errors import ConfigError, InputError
from petground.training import hits
from petground.training.checkpoints import WholeFiles
from petground.training.cli import main
from petground.training.inference import load_module


def _epoch(file: Path) -> int:
    return int(torch.load(file, weights_only=True)["epoch"])


def _scores(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(hits.Hits, "f1", value)


def test_a_run_that_was_moved_keeps_its_best(patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    _scores(monkeypatch, 0.9)
    assert main(small_flags(patch_work, there, trainer__max_epochs=1)) == 0
    shutil.move(there, here)
    _scores(monkeypatch, 0.1)
    assert main(small_flags(patch_work, here, trainer__max_epochs=2, ckpt_path="last")) == 0
    files = here / "checkpoints"
    assert (_epoch(files / "best.ckpt"), _epoch(files / "last.ckpt")) == (0, 1)
    _scores(monkeypatch, 0.95)
    assert main(small_flags(patch_work, here, trainer__max_epochs=3, ckpt_path="last")) == 0
    assert _epoch(files / "best.ckpt") == 2
    assert not there.exists()


@pytest.mark.parametrize(
    "more", [{"trainer__check_val_every_n_epoch": 3}, {"data__validation_fraction": 0}], ids=["too-short", "nobody"]
)
def test_where_nothing_validates_best_is_the_newest_and_it_is_told(
    more: dict[str, Any], patch_work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heads = {
        "model__net__presence": "true", "model__net__coarse_heads": "true", "model__net__features": "[4,8,8]",
        "model__net__fusion_stages": "[0,1]",
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert main(small_flags(patch_work, tmp_path / "run", **more, **heads)) == 0
    assert "nothing validated" in caplog.text
    module = load_module(tmp_path / "run" / "checkpoints" / "best.ckpt", device="cpu")
    assert (module.threshold, module.presence_threshold) == (0.5, 0.5)


def test_early_stop_without_a_validating_exam_is_refused(patch_work: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["e0", "e1", "e2", "e3"], "val": []}')
    with pytest.raises(ConfigError, match="no exam validates"):
        main(small_flags(patch_work, tmp_path / "run", data__splits=splits, early_stop=2))


def test_a_save_that_is_killed_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, file)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        WholeFiles().save_checkpoint({"step": 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["last.ckpt"]


def test_trainings_write_by_way_of_a_file_beside(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    whole = WholeFiles.save_checkpoint

    def told(self: WholeFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        saved.append(Path(path).name)
        whole(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeFiles, "save_checkpoint", told)
    assert main(small_flags(patch_work, tmp_path / "run", trainer__max_epochs=1)) == 0
    assert sorted(set(saved)) == ["best.ckpt", "last.ckpt"]


def test_files_that_are_no_checkpoint_are_refused_with_a_way_out(patch_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(small_flags(patch_work, run, trainer__max_epochs=1)) == 0
    last = run / "checkpoints" / "last.ckpt"
    wrong = {name: tmp_path / f"{name}.ckpt" for name in ("missing", "garbage", "foreign", "tensor", "torn", "odd")}
    content = torch.load(last, weights_only=True)
    wrong["garbage"].write_bytes(b"no checkpoint")
    torch.save({"state_dict": {}}, wrong["foreign"])
    torch.save(torch.zeros(3), wrong["tensor"])
    wrong["torn"].write_bytes(last.read_bytes()[:2000])
    torch.save({**content, "hyper_parameters": {"net": 3}}, wrong["odd"])
    for name, file in wrong.items():
        with pytest.raises(InputError, match="checkpoint"):
            load_module(file, device="cpu")
        if name != "odd":
            with pytest.raises(InputError, match="checkpoint"):
                main(small_flags(patch_work, tmp_path / name, ckpt_path=file))
    last.write_bytes(last.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"last\.ckpt is no whole checkpoint.*use best\.ckpt"):
        main(small_flags(patch_work, run, ckpt_path="last"))
