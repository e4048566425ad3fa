"""A gradient that is not finite ends the training before it is made weights, and its exams are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_fit import small_flags

from petground.labeling.errors import PetgroundError
from petground.training.cli import main
from petground.training.module import GroundingModule
from petground.training.optimizers import gradient_norm


@pytest.mark.parametrize(("accumulated", "precision"), [(1, "32-true"), (2, "bf16-mixed")])
def test_the_exams_of_a_step_that_would_spoil_the_weights_are_named(
    patch_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulated: int, precision: str
) -> None:
    seen: list[str] = []
    modules: list[GroundingModule] = []
    real = GroundingModule._losses_by_exam

    def spoilt(self: GroundingModule, batch: Mapping[str, Any]) -> Any:
        losses = real(self, batch)
        modules.append(self)
        if self.training:
            seen.extend(batch["exam_id"])
            if batch["exam_id"] == ["e2"]:  # a loss as any other, with a gradient of 0 times infinity
                weight = next(p for p in self.net.parameters() if p.requires_grad)
                losses["loss"] = losses["loss"] + (weight.sum() * 0.0).sqrt()
        return losses

    monkeypatch.setattr(GroundingModule, "_losses_by_exam", spoilt)
    more = {"data__validation_fraction": 0, "trainer__gradient_clip_val": 5.0, "trainer__precision": precision}
    with pytest.raises(PetgroundError, match="norm of the gradient is nan") as caught:
        main(small_flags(patch_work, tmp_path / "run", **more, trainer__accumulate_grad_batches=accumulated))
    at = seen.index("e2") // accumulated * accumulated
    assert caught.value.case == ", ".join(seen[at : at + accumulated])
    assert seen[at + accumulated :] == [], "it went on"
    assert caught.value.reason == "not_finite"
    assert all(p.isfinite().all() for p in modules[-1].net.parameters()), "the weights are spoilt"


@pytest.mark.parametrize(("scale", "ends"), [(None, True), (65536.0, False), (0.5, True)])
def test_in_half_precision_an_overflow_is_the_scalers(scale: float | None, ends: bool) -> None:
    with torch.device("meta"):
        module = GroundingModule(net={"features": [4, 8], "fusion_stages": [0]})  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, float("inf")])
    optimizer = torch.optim.SGD([weight], 0.1)
    assert gradient_norm(optimizer) == float("inf")
    scaler = None if scale is None else SimpleNamespace(get_scale=lambda: scale)
    plugin = SimpleNamespace(scaler=scaler)
    module._trainer = SimpleNamespace(precision_plugin=plugin, global_step=3)  # type: ignore[assignment]
    module._in_step = ["e0", "e1"]
    if not ends:
        module.on_before_optimizer_step(optimizer)
    else:
        with pytest.raises(PetgroundError, match=r"^e0, e1: the norm of the gradient is inf at step 3"):
            module.on_before_optimizer_step(optimizer)
    assert module._in_step == []
