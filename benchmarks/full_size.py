"""The shipped networks at the size that they are shipped at, 3 mm, on a GPU: step, memory, exams per hour.

Run by `make bench-gpu`; alone: `python benchmarks/run.py full_size`, which is left out where there is no GPU. Each
config's model trains on random exams of its own patch or grid, with as many exams and sentences as its data section
says, as it is, compiled, and with gradient checkpointing; then ten sentences are asked on a whole body of
`BODY_ZYX` voxels. bf16 where the GPU has it. Steps and answers are medians of ROUNDS after two that are not counted;
reading exams from disk is in neither. What does not fit into memory says so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from model_sizes import SENTENCES

from petground.training.module import GroundingModule
from petground.training.optimizers import make_optimizer, parameter_groups
from petground.training.runtime import native_bf16

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"
MODELS = ("ours", "contextual_net_3d")
BODY_ZYX = (352, 192, 192)  # 1056 x 576 x 576 mm: skull to thigh with the table's width
ROUNDS, TEN = 9, 10
WAYS: dict[str, dict[str, Any]] = {"as it is": {}, "compiled": {"compile": True}, "checkpointing": {}}


def measure(names: tuple[str, ...] = MODELS) -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda")
    found = {name: of_config(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()), device) for name in names}
    return {"gpu": torch.cuda.get_device_name(), "bf16": native_bf16(device), "body_zyx": BODY_ZYX, "models": found}


def of_config(config: dict[str, Any], device: torch.device, rounds: int = ROUNDS) -> dict[str, Any]:
    """Figures of a config with sections model and data: of a training step in each of WAYS, and of ten answers."""
    model, data = config["model"], config["data"]
    exams, sentences = int(data.get("exams_per_step", 1)), int(data["sentences"])
    steps = {way: _in_memory(lambda way=way: _step(model, way, exams, sentences, device, rounds)) for way in WAYS}
    return {
        "exams_in_a_step": exams,
        "sentences_of_an_exam": sentences,
        "step": steps,
        "ten_sentences": _in_memory(lambda: _answers(model, device, rounds)),
    }


def _in_memory(measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measured()
    except torch.OutOfMemoryError:
        return {"does_not_fit": True}


def _step(
    model: dict[str, Any], way: str, exams: int, sentences: int, device: torch.device, rounds: int
) -> dict[str, Any]:
    net = {**model["net"], "checkpointing": way == "checkpointing"}
    module = GroundingModule(**{**model, "net": net, **WAYS[way]}).to(device).train()
    shape = tuple(module.grid.patch_zyx or module.grid.shape_zyx)
    batch = {
        "image": torch.rand(exams, 2, *shape, device=device),
        "sentences": [[SENTENCES[n % len(SENTENCES)] for n in range(sentences)]] * exams,
        "target": torch.zeros(exams, sentences, *shape, device=device),
    }
    middle = (slice(None), slice(None), *(slice(n // 2, n // 2 + 4) for n in shape))
    batch["target"][middle] = 1.0
    config = module.optimizer_config
    optimizer, _ = make_optimizer(config, parameter_groups(config, [(module.net, 1.0)]), config.warm_up)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
            loss = module._losses(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds, peak = _timed(run, device, rounds)
    return {"seconds": seconds, "peak_gib": peak, "exams_per_hour": round(3600 * exams / seconds)}


def _answers(model: dict[str, Any], device: torch.device, rounds: int) -> dict[str, Any]:
    module = GroundingModule(**model).to(device).eval()
    shape = BODY_ZYX if module.grid.patch_zyx else tuple(module.grid.shape_zyx)
    image = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    asked = [f"{SENTENCES[n % len(SENTENCES)]} {n}" for n in range(TEN)]
    seconds, peak = _timed(lambda: module.predict(image, asked), device, rounds)
    return {"seconds": seconds, "peak_gib": peak, "exams_per_hour": round(3600 / seconds)}


def _timed(run: Callable[[], Any], device: torch.device, rounds: int) -> tuple[float, float | None]:
    """Median of seconds, and the most GiB that were held at once; None on the CPU, where nobody counts."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    each = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        each.append(time.perf_counter() - start)
    peak = round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None
    return round(statistics.median(each[2:]), 4), peak
