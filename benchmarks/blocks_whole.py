"""What a block costs the whole network: a training step and an answer, timed beside the same network without it.

Part of `python benchmarks/run.py blocks` (every token reduction, before any training) and `blocks_trained` (what is
trained there). The network, its grid and its loss are those of configs/train/demo.yaml, one exam and one sentence (each
further one costs its share of the decoder again). Two networks that differ in one thing work in turn in one process
(A B A B): the median of the pairs' ratios, and the least and the largest of them.

Token reductions: softmax self-attention (PyTorch's fused one) among the voxels of one decoder stage, with the reduction
against without. Choosing, merging and the way back are inside, for it is the network that is timed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml

from petground.kernels.memory import reuse_memory
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.models.registry import BLOCKS
from petground.pipeline.files import write_json
from petground.pipeline.stage import content_hash
from petground.training.losses import LossConfig, deep_loss
from petground.training.runtime import channels_last_on_cpu, use_threads

DEMO: dict[str, Any] = yaml.safe_load(
    files("petground.configs.train").joinpath("demo.yaml").read_text(encoding="utf-8")
)["model"]
GRID: tuple[int, ...] = tuple(DEMO["grid"]["shape_zyx"])
STAGES, SENTENCES, TOKENS, TEXT = (2, 1), 1, 24, 384
LEAST, MOST = 3, 9  # pairs
BUDGET, LIMIT, MEMORY_GIB = 15.0, 600.0, 10  # seconds of a figure's pairs; seconds and memory of one comparison
Net = Mapping[str, Any]  # what differs from DEMO["net"]


def attention(stage: int) -> dict[str, Any]:
    return {"attention": {"name": "softmax", "num_heads": 4, "stages": [stage]}}


def reductions(folder: Path) -> list[dict[str, Any]]:
    """Every reduction at both stages: the same attention with it against without."""
    rows = []
    for stage in STAGES:
        for key in BLOCKS["token_reduction"]:
            if key != "none":
                plain, reduced = pair(stage, {"name": key})
                rows.append({"stage": stage, "key": key, **kept(folder, reduced, plain)})
    return rows


def pair(stage: int, reduction: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attention alone, and with the reduction."""
    plain = attention(stage)
    return plain, {**plain, "token_reduction": dict(reduction)}


def config(net: Net) -> NetConfig:
    """Raises BlockError for what the registry does not have or the network cannot hold."""
    spacing = tuple(reversed(DEMO["grid"]["spacing_xyz_mm"]))
    return NetConfig(**{**DEMO["net"], "spacing_zyx_mm": spacing, **net})


def kept(folder: Path, net: Net, against: Net, *, run: bool = True) -> dict[str, Any]:
    """`compare` in a process of its own, once: again when the networks, their code or this file changed.

    run: False tells what was measured before, if it was.
    """
    from sources import hashes  # the process, which sees this folder not, has no need of it

    code = hashes("petground.models", "petground.kernels", "petground.training.losses")
    asked = json.dumps([net, against], sort_keys=True)
    path = folder / f"whole_{content_hash([Path(__file__).read_text(encoding='utf-8'), code, DEMO, asked])[:16]}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    if not run:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"whole network: {json.dumps(net)} ...\n")
    try:
        told = subprocess.run(
            [sys.executable, "-P", __file__, asked], stdout=subprocess.PIPE, check=False, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        found = {"left_out": f"more than {LIMIT:.0f} s"}
    else:
        if told.returncode != 0:  # not kept: it may have been the machine's fault
            return {"left_out": f"failed, or more than {MEMORY_GIB} GiB"}
        found = json.loads(told.stdout)
    write_json(path, found)
    return found


def compare(net: Net, against: Net, grid: tuple[int, ...] = GRID, budget: float = BUDGET) -> dict[str, Any]:
    """{"step", "inference"}: ratio to the other network, its range over the pairs, seconds of both; {"parameters"}."""
    nets = []
    for one in (net, against):
        torch.manual_seed(0)
        nets.append(GroundingNet(config(one), TEXT))
        channels_last_on_cpu(nets[-1])
    given = torch.rand(1, 2, *grid), torch.randn(1, SENTENCES, TOKENS, TEXT), torch.ones(1, SENTENCES, TOKENS).bool()
    return {
        "step": _in_turn(*(_step(one, *given) for one in nets), budget),
        "inference": _in_turn(*(_answer(one.eval(), *given) for one in nets), budget / 3.0),
        "parameters": [sum(p.numel() for p in one.parameters()) for one in nets],
    }


def _step(net: GroundingNet, image: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> Callable[[], None]:
    optimizer, loss = torch.optim.AdamW(net.parameters(), 1e-4), LossConfig(**DEMO["loss"])
    target = torch.zeros(1, SENTENCES, *image.shape[2:])
    target[..., 2:6, 3:6, 4:7] = 1.0

    def run() -> None:
        deep_loss(net.decode(net.encode(image), tokens, mask), target, loss)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _answer(net: GroundingNet, *given: torch.Tensor) -> Callable[[], Any]:
    return torch.inference_mode()(partial(net, *given))


def _in_turn(a: Callable[[], Any], b: Callable[[], Any], budget: float) -> dict[str, Any]:
    _timed(a), _timed(b)  # the first call of each: what it sets up is not the block's cost
    times: list[tuple[float, float]] = []
    while len(times) < LEAST or (len(times) < MOST and sum(map(sum, times)) * (1.0 + 1.0 / len(times)) < budget):
        times.append((_timed(a), _timed(b)))
    ratios = [one / other for one, other in times]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds": round(statistics.median(one for one, _ in times), 4),
        "against_seconds": round(statistics.median(other for _, other in times), 4),
        "pairs": len(times),
    }


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _limit_memory() -> None:
    if sys.platform == "linux":  # a reduction that holds N x N must not take the whole machine
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB << 30, MEMORY_GIB << 30))


if __name__ == "__main__":
    _limit_memory()
    reuse_memory()
    use_threads()
    sys.stdout.write(json.dumps(compare(*json.loads(sys.argv[1])), indent=1) + "\n")
