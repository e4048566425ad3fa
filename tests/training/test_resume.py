"""A training that stopped goes on with the steps that would have come, and with the flags that it is given."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_fit import logged, small_flags

from petground.labeling.errors import ConfigError
from petground.pipeline.cli import main as petground
from petground.training import callbacks
from petground.training.cli import main
from petground.training.dataset import EpochSampler
from petground.training.module import GroundingModule

TWO_EPOCHS: dict[str, Any] = {
    "data__validation_fraction": 0, "data__absent_fraction": 0, "model__optimizer__name": "sgd",
    "trainer__max_epochs": 2,
}  # fmt: skip
STEP = GroundingModule.training_step


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Lightning turns Ctrl-C off for the rest of the process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def _fit(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, *, stop: tuple[int, int] | None = None, kill: bool = False
) -> list[str]:
    """Trains and tells which exams came; stop: the epoch and batch after which, or with `kill` in which, it ends."""
    seen: list[str] = []

    def told(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        here = (module.current_epoch, index) == stop
        if here and kill:
            raise KeyboardInterrupt
        seen.extend(batch["exam_id"])
        if here:
            module.trainer.should_stop = True  # as Lightning's timer of max_time does
        return STEP(module, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", told)
        if kill:
            with pytest.raises(KeyboardInterrupt):
                main(flags)
        else:
            assert main(flags) == 0
    return seen


@contextmanager
def _saved_after(epoch: int, batch: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings in here write last.ckpt below the folder when this batch of this epoch is done."""

    def saved(module: GroundingModule, outputs: Any, seen: Any, index: int) -> None:
        if (module.current_epoch, index) == (epoch, batch):
            module.trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")

    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "on_train_batch_end", saved)
        yield


@pytest.mark.parametrize(
    ("stop", "more", "again"),
    [
        pytest.param((1, 1), {}, 0, id="a-stop"),
        pytest.param((0, 2), {}, 0, id="a-stop-in-the-first-epoch"),
        pytest.param(
            (1, 0),
            {"data__validation_fraction": 0.25, "trainer__val_check_interval": 1},
            0,
            id="a-stop-at-a-validation",
        ),
        # the third exam's gradients waited for the fourth's, and were lost
        pytest.param((1, 2), {"trainer__accumulate_grad_batches": 2}, 1, id="a-stop-within-a-step"),
    ],
)
def test_a_stop_within_an_epoch_loses_nothing_of_it(
    stop: tuple[int, int], more: dict[str, Any], again: int, patch_work: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, parts, more = tmp_path / "whole", tmp_path / "parts", TWO_EPOCHS | more
    each = 3 if more["data__validation_fraction"] else 4
    wanted = _fit(small_flags(patch_work, whole, **more), monkeypatch)
    assert len(wanted) == 2 * each
    first = _fit(small_flags(patch_work, parts, **more), monkeypatch, stop=stop)
    assert len(first) == each * stop[0] + stop[1] + 1
    rest = _fit(small_flags(patch_work, parts, **more, ckpt_path="last"), monkeypatch)
    assert first[: len(first) - again] + rest == wanted
    losses = logged(parts / "version_0") | logged(parts / "version_1")
    assert losses == pytest.approx(logged(whole / "version_0"), rel=1e-4)
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, parts)]
    assert weights[0]["global_step"] == weights[1]["global_step"]
    for name, value in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][name], value)


@pytest.mark.usefixtures("ctrl_c")
def test_after_ctrl_c_the_epoch_comes_again(patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = _fit(small_flags(patch_work, whole, **TWO_EPOCHS), monkeypatch)
    _fit(small_flags(patch_work, parts, **TWO_EPOCHS), monkeypatch, stop=(1, 2), kill=True)
    rest = _fit(small_flags(patch_work, parts, **TWO_EPOCHS, ckpt_path="last"), monkeypatch)
    assert rest == wanted[4:]
    after = {step: loss for step, loss in logged(whole / "version_0").items() if step >= 4}
    assert logged(parts / "version_1") == pytest.approx(after, rel=1e-4)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("more", "again"),
    [
        ({}, 0),
        # saved after three: the third exam's gradients wait for the fourth's, and come again
        ({"trainer__accumulate_grad_batches": 2}, 1),
    ],
)
def test_a_kill_costs_what_came_since_the_last_save_on_the_way(
    more: dict[str, Any], again: int, patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "SAVE_EVERY", timedelta(days=1) if again else timedelta(microseconds=1))
    whole, parts, more = tmp_path / "whole", tmp_path / "parts", TWO_EPOCHS | more
    wanted = _fit(small_flags(patch_work, whole, **more), monkeypatch)

    with _saved_after(0, 2, parts, monkeypatch) if again else nullcontext():
        first = _fit(small_flags(patch_work, parts, **more), monkeypatch, stop=(0, 3), kill=True)
    assert first == wanted[:3]
    rest = _fit(small_flags(patch_work, parts, **more, ckpt_path="last"), monkeypatch)
    assert first[: 3 - again] + rest == wanted
    losses = logged(parts / "version_0") | logged(parts / "version_1")
    assert losses == pytest.approx(logged(whole / "version_0"), rel=1e-4)


@pytest.mark.usefixtures("ctrl_c")
def test_what_waits_for_the_first_step_of_an_epoch_comes_again(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts, more = tmp_path / "whole", tmp_path / "parts", TWO_EPOCHS | {"trainer__accumulate_grad_batches": 2}
    wanted = _fit(small_flags(patch_work, whole, **more), monkeypatch)

    with _saved_after(1, 0, parts, monkeypatch):
        first = _fit(small_flags(patch_work, parts, **more), monkeypatch, stop=(1, 1), kill=True)
    assert first == wanted[:5]
    rest = _fit(small_flags(patch_work, parts, **more, ckpt_path="last"), monkeypatch)
    assert rest == wanted[4:]
    losses = logged(parts / "version_0") | logged(parts / "version_1")
    assert losses == pytest.approx(logged(whole / "version_0"), rel=1e-4)


@pytest.mark.usefixtures("ctrl_c")
def test_a_kill_in_the_validation_costs_no_epoch(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "SAVE_EVERY", timedelta(microseconds=1))
    flags = TWO_EPOCHS | {"data__validation_fraction": 0.25}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = _fit(small_flags(patch_work, whole, **flags), monkeypatch)

    def killed(module: GroundingModule, batch: Any, index: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "validation_step", killed)
        with pytest.raises(KeyboardInterrupt):
            main(small_flags(patch_work, parts, **flags))
    rest = _fit(small_flags(patch_work, parts, **flags, ckpt_path="last"), monkeypatch)
    assert rest == wanted[3:]
    after = {step: loss for step, loss in logged(whole / "version_0").items() if step >= 3}
    assert logged(parts / "version_1") == pytest.approx(after, rel=1e-4)


def test_sigterm_is_no_success(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler that takes its machine back must not find a training that is done."""

    def told(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        if (module.current_epoch, index) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return STEP(module, batch, index)

    flags = small_flags(patch_work, tmp_path / "run", **TWO_EPOCHS)
    with monkeypatch.context() as patched:
        patched.setattr(GroundingModule, "training_step", told)
        assert petground(["train", *flags]) == 1
    assert "--ckpt_path last" in capsys.readouterr().err
    assert main([*flags, "--ckpt_path=last"]) == 0
    assert set(logged(tmp_path / "run" / "version_1")) == {4, 5, 6, 7}


def test_what_was_taken_of_an_epoch_is_left_out_of_that_one_alone() -> None:
    for rank in range(2):
        whole, rest = (EpochSampler(13, 5, rank=rank, processes=2, step=3, taken=taken) for taken in ((0, 0), (4, 1)))
        for epoch, out in ((3, 0), (4, 3), (5, 0)):
            whole.set_epoch(epoch)
            rest.set_epoch(epoch)
            assert list(rest) == list(whole)[out:]
        assert len(rest) == len(whole) == 6


def test_flags_win_over_the_checkpoints_settings_and_another_network_is_refused(
    patch_work: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    once = {"trainer__limit_train_batches": 1, "data__validation_fraction": 0}
    assert main(small_flags(patch_work, run, **once, trainer__max_epochs=1)) == 0
    path = tmp_path / "kept.ckpt"
    path.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    for attempt, checkpoint in enumerate((path, "last"), start=1):
        more = {"model__loss__place": 0.7, "model__optimizer__ema": 0.9, "trainer__max_epochs": attempt + 1}
        assert main(small_flags(patch_work, run, **once, **more, ckpt_path=checkpoint)) == 0
        config = yaml.safe_load((run / f"version_{attempt}" / "config.yaml").read_text())
        assert config["model"]["loss"]["place"] == 0.7
        assert config["model"]["optimizer"]["ema"] == 0.9
        kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["hyper_parameters"]["loss"]["place"] == 0.7
    other = small_flags(patch_work, tmp_path / "other", **once, model__net__features="[4,12]", ckpt_path=path)
    with pytest.raises(ConfigError, match=r"model.net.features is \[4, 12\] here, \[4, 8\] there") as caught:
        main(other)
    assert "config.yaml" in str(caught.value.fix)


def test_going_on_takes_todays_rates_and_keeps_the_moments(patch_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    once = {
        "trainer__limit_train_batches": 2, "data__validation_fraction": 0, "model__optimizer__schedule": "constant",
    }  # fmt: skip
    assert main(small_flags(patch_work, run, **once, trainer__max_epochs=1)) == 0
    less = {"model__optimizer__lr": 0.0001, "model__optimizer__weight_decay": 0.3, "trainer__max_epochs": 2}
    assert main(small_flags(patch_work, run, **once, **less, ckpt_path="last")) == 0
    assert set(logged(run / "version_1", "lr-AdamW/pg1").values()) == {0.0001}
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (optimizer,) = kept["optimizer_states"]
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.3, 0.0]
    assert {float(state["step"]) for state in optimizer["state"].values()} == {4.0}
    other = {"model__optimizer__name": "sgd", "trainer__max_epochs": 3}
    with pytest.raises(ConfigError, match="trained by adamw") as caught:
        main(small_flags(patch_work, run, **once, **other, ckpt_path="last"))
    assert caught.value.fix == "go on with --model.optimizer.name adamw"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ({"model__net__fusion": '{"name": "contextual_gate", "form": "residual_gate"}'}, "model.net.fusion is"),
        ({"model__grid__suv_window": "[0.0,20.0]"}, r"model.grid.suv_window is .0.0, 20.0. here, .0.0, 10.0. there"),
        ({"model__text__max_tokens": 32}, "model.text.max_tokens is 32 here, 64 there"),
    ],
)
def test_settings_that_fit_and_compute_otherwise_are_refused(
    flag: dict[str, Any], said: str, patch_work: Path, tmp_path: Path
) -> None:
    run, once = tmp_path / "run", {"trainer__limit_train_batches": 1, "data__validation_fraction": 0}
    assert main(small_flags(patch_work, run, **once, trainer__max_epochs=1)) == 0
    with pytest.raises(ConfigError, match=said):
        main(small_flags(patch_work, run, **once, **flag, trainer__max_epochs=2, ckpt_path="last"))
    kernel = {"model__net__fusion": '{"name": "contextual_gate", "backend": "chunked"}'}
    assert main(small_flags(patch_work, run, **once, **kernel, trainer__max_epochs=2, ckpt_path="last")) == 0


@pytest.mark.parametrize("part", ["val", "test"])
def test_nobody_who_was_learnt_from_judges_after_a_stop(part: str, patch_work: Path, tmp_path: Path) -> None:
    """A review takes a patient's labels away, the split is worked out anew, and others move."""
    first, moved = tmp_path / "first.json", tmp_path / "moved.json"
    first.write_text('{"train": ["e0", "e1"], "val": ["e2"], "test": ["e3"]}')
    moved.write_text('{"train": ["e0"], "val": ["e2"], "test": ["e3"]}'.replace(f'"{part}": [', f'"{part}": ["e1", '))
    run = tmp_path / "run"
    flags = {"trainer__limit_train_batches": 1, "data__validation_fraction": 0.25}
    assert main(small_flags(patch_work, run, **flags, data__splits=first, trainer__max_epochs=1)) == 0
    with pytest.raises(ConfigError, match=f"1 patients of '{part}' have trained in this checkpoint") as caught:
        main(small_flags(patch_work, run, **flags, data__splits=moved, trainer__max_epochs=2, ckpt_path="last"))
    assert "--data.splits RUN/version_N/splits.json" in str(caught.value.fix)


def test_the_check_before_the_first_step_leaves_the_limits_as_they_were(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = tmp_path / "run", []
    flags = {"trainer__limit_train_batches": 1, "trainer__num_sanity_val_steps": 1}
    assert main(small_flags(patch_work, run, **flags, trainer__max_epochs=1)) == 0
    path = run / "checkpoints" / "last.ckpt"
    kept = torch.load(path, weights_only=True)
    kept["petground"]["threshold"] = 0.123
    torch.save(kept, path)

    def told(module: GroundingModule, batch: Any, index: int) -> torch.Tensor:
        seen.append(module.threshold)
        return STEP(module, batch, index)

    monkeypatch.setattr(GroundingModule, "training_step", told)
    assert main(small_flags(patch_work, run, **flags, trainer__max_epochs=2, ckpt_path="last")) == 0
    assert set(seen) == {0.123}
