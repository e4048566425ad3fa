"""What the text costs: a training step with it, ten sentences on one exam, and the same beside nnU-Net's predictor.

Part of `python benchmarks/run.py grounding`; alone: `python benchmarks/grounding_cost.py`. Ratios of times taken side
by side in one process (A B A B; median and quartiles of the pairs' ratios), after a warm-up. Ours is the network of
configs/train/ours.yaml with the loss, the patch and the optimizer there, as they stand; one exam in a step. What is
smaller: the exam, 128 x 64 x 64, in three windows of 64^3. "Plain" is the same network without text: `fusion: none` and
without the sentences' heads (coarse heads, presence, filters); its loss is Dice and cross-entropy. Both, and nnU-Net's
predictor, work in the same precision: bf16 where the device has it natively, else float32.

- text_step_ratio: a training step (forward, loss, backward, AdamW) with one sentence / of the plain network.
  One sentence, as one is what the plain network answers
- text_step_small_ratio: the same on a patch of 64^3, where what does not grow with the voxels counts for more
- text_step_float32_ratio: the same on that patch in float32, on any device
- text_finer_step_ratio: as the first where one stage finer reads the text, too
- text_steps_ratio: as the first with as many sentences as the config trains on in a step, each of which costs its
  share of the decoder again
- compiled_step_ratio: the step with as many sentences on a patch of 64^3, compiled (`model.compile`) / as it is;
  compiling is not counted
- ten_sentences_ratio: ten sentences in one pass over an exam / ten passes with one sentence each
- nnunet_predictor_ratio: ten sentences in one pass / nnU-Net's own predictor (nnunetv2, step 0.5, Gaussian weights, no
  mirroring) with the plain network on the same exam
- nnunet_own_ratio: the same against nnU-Net's predictor with nnU-Net's own network of these sizes, as it builds it:
  no norm, no memory order of ours
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from petground.kernels.memory import reuse_memory
from petground.models.grounding import GroundingNet
from petground.models.net_config import NetConfig
from petground.training.compiled import Steps, compiled_steps
from petground.training.losses import LossConfig, deep_loss
from petground.training.optimizers import OptimizerConfig, make_optimizer, parameter_groups
from petground.training.runtime import channels_last_on_cpu, native_bf16, use_threads
from petground.training.sliding import slide

WHOLE: dict[str, Any] = yaml.safe_load(
    files("petground.configs.train").joinpath("ours.yaml").read_text(encoding="utf-8")
)
CONFIG: dict[str, Any] = WHOLE["model"]
TRAINED_ON: int = WHOLE["data"]["sentences"]
OURS: dict[str, Any] = CONFIG["net"]
FINER = {
    **OURS, "fusion_stages": [OURS["shared_stages"] - 1, *OURS["fusion_stages"]],
    "shared_stages": OURS["shared_stages"] - 1,
}  # fmt: skip
PLAIN = {**OURS, "fusion": {"name": "none"}, "coarse_heads": False, "shared_stages": 0, "presence": False}
LOSS = LossConfig(**CONFIG["loss"])
PLAIN_LOSS = replace(LOSS, place=0.0, presence=0.0)
PATCH: tuple[int, ...] = tuple(CONFIG["grid"]["patch_zyx"])
WINDOW, EXAM, TOKENS, TEXT, SENTENCES = (64, 64, 64), (128, 64, 64), 24, 384, 10
LESION = (..., slice(20, 26), slice(30, 35), slice(40, 44))


def measure(pairs: int = 15) -> dict[str, Any]:
    reuse_memory()
    use_threads()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    ours, finer, plain = (GroundingNet(NetConfig(**config), TEXT).to(device) for config in (OURS, FINER, PLAIN))
    for net in (ours, finer, plain):
        channels_last_on_cpu(net)
    few = max(1, pairs // 3)

    def against_plain(net: GroundingNet, number: int, **how: Any) -> dict[str, Any]:
        one = {name: value for name, value in how.items() if name != "sentences"}
        return _ratio(_step(net, LOSS, device, **how), _step(plain, PLAIN_LOSS, device, **one), number, device)

    step = against_plain(ours, pairs)
    small = against_plain(ours, pairs, patch=WINDOW)
    single = against_plain(ours, few, patch=WINDOW, float32=True)
    fine = against_plain(finer, few)
    steps = against_plain(ours, few, sentences=TRAINED_ON)
    many = {"sentences": TRAINED_ON, "patch": WINDOW}
    compiled = _ratio(
        _step(ours, LOSS, device, calls=compiled_steps(ours), **many), _step(ours, LOSS, device, **many), few, device
    )
    ours.eval(), plain.eval()
    image = torch.rand(2, *EXAM).numpy()
    tokens = torch.randn(SENTENCES, TOKENS, TEXT, device=device)
    mask = torch.ones(SENTENCES, TOKENS, dtype=torch.bool, device=device)

    def together() -> None:
        _slide(ours, image, tokens, mask)

    def alone() -> None:
        for n in range(SENTENCES):
            _slide(ours, image, tokens[n : n + 1], mask[n : n + 1])

    ten = _ratio(together, alone, max(1, pairs // 5), device)
    peer = _ratio(together, _nnunet(_Plain(plain, device), image, device), few, device)
    own = _ratio(together, _nnunet(_Own(plain.config, device), image, device), few, device)
    figures = {
        "text_step_ratio": step,
        "text_step_small_ratio": small,
        "text_step_float32_ratio": single,
        "text_finer_step_ratio": fine,
        "text_steps_ratio": steps,
        "compiled_step_ratio": compiled,
        "ten_sentences_ratio": ten,
        "nnunet_predictor_ratio": peer,
        "nnunet_own_ratio": own,
    }
    return {
        **{name: figure["ratio"] for name, figure in figures.items()},
        "cost": figures,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "bf16": native_bf16(device),
        "patch_zyx": PATCH,
        "window_zyx": WINDOW,
        "exam_zyx": EXAM,
        "sentences_in_a_step": TRAINED_ON,
        "parameters": {"ours": _count(ours), "plain": _count(plain)},
    }


def _step(
    net: GroundingNet, loss: LossConfig, device: torch.device, sentences: int = 1, calls: Steps | None = None,
    *, patch: tuple[int, ...] = PATCH, float32: bool = False,
) -> Callable[[], None]:  # fmt: skip
    """calls: the network's encode and decode where they are compiled."""
    net.train()
    encode, decode = calls or (net.encode, net.decode)
    config = OptimizerConfig(**CONFIG["optimizer"])
    optimizer, _ = make_optimizer(config, parameter_groups(config, [(net, 1.0)]), config.warm_up)
    image = torch.rand(1, 2, *patch, device=device)
    tokens, mask = (
        torch.randn(1, sentences, TOKENS, TEXT, device=device),
        torch.ones(1, sentences, TOKENS, dtype=torch.bool, device=device),
    )
    target = torch.zeros(1, sentences, *patch, device=device)
    target[LESION] = 1.0

    def run() -> None:
        with contextlib.nullcontext() if float32 else _precision(device):
            decoded = decode(encode(image), tokens, mask)
        deep_loss(decoded, target, loss)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _precision(device: torch.device) -> torch.autocast:
    """What training and inference work in, here for everybody: nnU-Net's predictor has one of its own on CUDA only."""
    return torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device))


def _slide(net: GroundingNet, image: Any, tokens: Tensor, mask: Tensor) -> None:
    with torch.inference_mode(), _precision(tokens.device):
        slide(net.encode, net.decode, image, tokens, mask, patch_zyx=WINDOW, step=0.5, chunk=SENTENCES)


class _Plain(nn.Module):
    """Image in, logits of one class out: what nnU-Net's predictor asks of a network."""

    def __init__(self, net: GroundingNet, device: torch.device):
        super().__init__()
        self.net = net
        self.tokens = torch.zeros(1, 1, 1, TEXT, device=device)
        self.mask = torch.ones(1, 1, 1, dtype=torch.bool, device=device)

    def forward(self, image: Tensor) -> Tensor:
        with _precision(image.device):
            return self.net.decode(self.net.encode(image), self.tokens, self.mask).stages[-1]


class _Own(nn.Module):
    """nnU-Net's residual encoder U-Net; image in, logits of one class out."""

    def __init__(self, config: NetConfig, device: torch.device):
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

        super().__init__()
        stages = len(config.features)
        self.net = ResidualEncoderUNet(
            config.in_channels, stages, config.features, nn.Conv3d,
            [config.kernel_zyx(stage) for stage in range(stages)],
            [config.stride_zyx(stage) for stage in range(stages)],
            config.blocks_per_stage, 1, config.decoder_convs, conv_bias=True,
            norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        ).to(device)  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        with _precision(image.device):
            return self.net(image)


def _nnunet(network: nn.Module, image: Any, device: torch.device) -> Callable[[], None]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    predictor.network = network.eval()
    predictor.configuration_manager = SimpleNamespace(patch_size=list(WINDOW))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=1)
    predictor.allowed_mirroring_axes = None
    data = torch.from_numpy(image)
    return partial(predictor.predict_sliding_window_return_logits, data)


def _ratio(a: Callable[[], Any], b: Callable[[], Any], pairs: int, device: torch.device) -> dict[str, Any]:
    """Median and quartiles of the pairs' time ratios a / b, and both medians in seconds."""
    _timed(a, device), _timed(b, device)
    times = [(_timed(a, device), _timed(b, device)) for _ in range(pairs)]
    ratios = [one / other for one, other in times]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if pairs > 1 else ratios * 3
    return {
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "seconds": round(statistics.median(one for one, _ in times), 3),
        "against_seconds": round(statistics.median(other for _, other in times), 3),
        "pairs": pairs,
    }


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # nnU-Net's predictor prints
        found = measure()
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
