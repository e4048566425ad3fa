"""Parameters of every shipped network, and what a training step of the small benchmark's costs against ours.

Run by `python benchmarks/run.py model_sizes`. Parameters are those that are trained; a frozen text encoder has its own.
Steps take turns in one process on one thread (forward, loss, backward, AdamW; 8 sentences, text included as training
does: banked, or run with learned prompts), measured in processor seconds, which a busy machine disturbs less.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from petground.models.net_config import NetConfig
from petground.models.networks import build_network
from petground.models.text.encoder import TextEncoderError
from petground.training.module import GroundingModule

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"
ROUNDS = int(os.environ.get("PETGROUND_BENCH_ROUNDS", "5"))
TEXT_CHANNELS = {"meta-llama/Llama-2-7b-hf": 4096}  # gated: its config cannot be read without an account
SENTENCES = [
    "Intensely hypermetabolic left axillary lymph node, consistent with metastatic disease.",
    "FDG avid nodule in the right lower lobe of the lung.",
    "Hypermetabolic focus in the T11 vertebral body.",
    "Right adrenal lesion.",
    "Avid left level IIa node.",
    "Focal uptake in the right fourth rib without a fracture.",
    "Hypermetabolic lesion in segment 7 of the liver.",
    "Intense uptake in a left external iliac node.",
]


def measure() -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    small: dict[str, GroundingModule] = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        if "net" not in model:  # a part for other configs
            continue
        rows[path.stem] = {
            "architecture": model["net"].get("architecture", "unet"),
            "input_zyx": model["grid"].get("patch_zyx") or model["grid"]["shape_zyx"],
            "spacing_xyz_mm": model["grid"]["spacing_xyz_mm"],
            "trained_parameters": _parameters(model),
        }
        if path.stem.startswith("bench_"):
            torch.manual_seed(0)
            small[path.stem] = GroundingModule(**model)
    for name, seconds in _steps(small).items():
        rows[name]["step_cpu_seconds"] = round(statistics.median(seconds), 2)
    base = rows["bench_ours"]["step_cpu_seconds"]
    for name in small:
        rows[name]["step_ratio_to_ours"] = round(rows[name]["step_cpu_seconds"] / base, 2)
    return rows


def _parameters(model: dict[str, Any]) -> int:
    name = model["text"]["name"]
    try:
        channels = TEXT_CHANNELS.get(name) or GroundingModule(text=model["text"]).bank.encoder.channels
    except TextEncoderError:
        raise SystemExit(f"the config of text encoder '{name}' cannot be read") from None
    with torch.device("meta"):
        net = build_network(NetConfig(**model["net"]), channels)
    return sum(p.numel() for p in net.parameters())


def _steps(modules: dict[str, GroundingModule]) -> dict[str, list[float]]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    optimizers = {name: torch.optim.AdamW(m.net.parameters(), lr=1e-4) for name, m in modules.items()}
    grid = next(iter(modules.values())).grid.shape_zyx
    target = torch.zeros(1, len(SENTENCES), *grid)
    target[:, :6, 40:42, 10:12, 20:22] = 1.0
    batch = {"image": torch.rand(1, 2, *grid), "sentences": [SENTENCES], "target": target}
    for turn in range(ROUNDS + 1):
        for name, module in modules.items():
            start = time.process_time()
            module._losses(batch)["loss"].backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            if turn:  # the first loads the text encoder
                seconds[name].append(time.process_time() - start)
    return seconds
