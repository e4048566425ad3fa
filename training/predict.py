"""What a module says to the sentences of one exam: on the whole grid, or window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from petground.labeling.errors import InputError
from petground.models.net_config import NetConfig
from petground.models.unet import Decoded
from petground.training.grid import GridSpec
from petground.training.inference import Prediction
from petground.training.runtime import native_bf16
from petground.training.sliding import room, slide

__all__ = ["answers_to", "predict", "sentences_at_once"]

LOGITS = 8  # so many voxels of logits count as one of features
DECODED_VOXELS = {"cpu": 2_000_000, "cuda": 8_000_000}  # at once, over sentences


def sentences_at_once(config: NetConfig, input_zyx: Sequence[int], device: str) -> int:
    """How many sentences are held at a time: their features at the finest stage that reads them, or their logits, which
    grow with the full grid. What the sentences share is held once and does not count."""
    finest = [math.prod(config.stride_zyx(stage)) for stage in range(config.shared_stages + 1)]
    voxels = math.prod(input_zyx) // min(math.prod(finest), LOGITS)
    return max(1, DECODED_VOXELS.get(device, DECODED_VOXELS["cpu"]) // voxels)


@torch.inference_mode()
def predict(
    module: Any,
    image: NDArray[np.floating[Any]],
    sentences: Sequence[str],
    *,
    chunk: int | None = None,
    near: Sequence[tuple[float, float] | None] | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Prediction:
    """See `GroundingModule.predict`. Raises InputError for an image that is not on the model's grid."""
    grid, device = module.grid, module.device
    _check(module.net_config, grid, image.shape)
    chunk = chunk or sentences_at_once(module.net_config, grid.input_zyx, device.type)
    training = module.training
    module.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device) and not module.trained_in_full):
            if grid.patch_zyx is None:
                return _whole(module, image, sentences, chunk)
            tokens, mask = module.embed(sentences)
            answers = slide(
                module.net.encode,
                module.net.decode,
                image,
                tokens,
                mask,
                patch_zyx=grid.patch_zyx,
                step=grid.patch_step,
                near=near,
                chunk=chunk,
                tick=tick,
            )
            return Prediction(answers.probabilities, answers.presence)
    finally:
        module.train(training)


def answers_to(module: Any, batch: Mapping[str, Any]) -> Iterator[tuple[Decoded, Tensor]]:
    """What is said to a validating batch, and the target [B, S, Z, Y, X] of it: the answers' logits and the presence.

    As many sentences at a time as `predict` decodes, or of an exam that is slid over one.
    """
    if module.grid.patch_zyx is None:
        chunk = sentences_at_once(module.net_config, module.grid.input_zyx, module.device.type)
        features = module.net.encode(batch["image"])
        for start in range(0, batch["target"].shape[1], chunk):
            target = batch["target"][:, start : start + chunk].float()
            tokens, mask = module.embed([words for one in batch["sentences"] for words in one[start : start + chunk]])
            asked = target.shape[:2]
            decoded = module.net.decode(features, tokens.unflatten(0, asked), mask.unflatten(0, asked))
            yield Decoded(decoded.stages[-1:], decoded.presence), target
        return
    for image, sentences, target in zip(batch["image"], batch["sentences"], batch["target"], strict=True):
        said = predict(module, image.float().cpu().numpy(), sentences)
        for which in range(len(sentences)):
            probability = torch.from_numpy(np.array(said.probabilities[which])).to(target.device)
            presence = None
            if said.presence is not None:
                presence = torch.from_numpy(said.presence[which : which + 1]).logit(1e-6)[None].to(target.device)
            yield Decoded([probability.logit(1e-6)[None, None]], presence), target[None, which : which + 1].float()


def _whole(module: Any, image: NDArray[np.floating[Any]], sentences: Sequence[str], chunk: int) -> Prediction:
    out = room((len(sentences), *image.shape[1:]))
    presence = np.empty(len(sentences), dtype=np.float32) if module.net_config.presence else None
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(module.device)
    features = module.net.encode(tensor)
    for start in range(0, len(sentences), chunk):
        tokens, mask = module.embed(sentences[start : start + chunk])
        decoded = module.net.decode(features, tokens[None], mask[None])
        for which, logits in enumerate(decoded.stages[-1][0], start=start):
            out.write(which, 0, logits.float().sigmoid().cpu().numpy())
        if presence is not None and decoded.presence is not None:
            presence[start : start + chunk] = decoded.presence[0].float().sigmoid().cpu().numpy()
    return Prediction(out.read(), presence)


def _check(config: NetConfig, grid: GridSpec, shape: tuple[int, ...]) -> None:
    if grid.patch_zyx is None and shape != (config.in_channels, *grid.shape_zyx):
        raise InputError(f"image {shape} is not on the model's grid {tuple(grid.shape_zyx)}")
    smaller = len(shape) != 4 or any(n < p for n, p in zip(shape[1:], grid.input_zyx, strict=True))
    if smaller or shape[0] != config.in_channels:
        raise InputError(
            f"image {shape}: not {config.in_channels} channels of at least a patch {tuple(grid.input_zyx)}"
        )
