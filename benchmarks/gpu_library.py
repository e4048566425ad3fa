"""What petground's kernels are timed against: PyTorch's fused attention, compiled FlexAttention, natten, fla, eager."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch._functorch.config as functorch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["SDPA", "Contender", "attention_contenders", "compiled", "flex", "natten", "sdpa"]

SDPA = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION, "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION, "SDPA math": SDPBackend.MATH,
}  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """`run` takes the operands by name. `order` [N]: it gets voxels in this order; putting them so is not timed."""

    run: Callable[..., Tensor]
    order: Tensor | None = None
    eager: bool = False  # holds all scores: no library's fused kernel, so not among the best of them


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """By torch.compile on a GPU; on the CPU, where only the logic is of interest, as it is."""
    if not torch.cuda.is_available():
        return function
    functorch.donated_buffer = False  # a graph is gone through several times, to time it
    found: Callable[..., Any] = torch.compile(function, dynamic=False)
    return found


def sdpa(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """By one backend, which raises where it does not serve; mask: broadcastable to [B, H, N, P], bool or a bias."""
    with sdpa_kernel(backend):
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_contenders(eager: Callable[..., Tensor], mask: Tensor | None) -> dict[str, Contender]:
    """For softmax attention under a mask [B, P] of keys: backends of SDPA, FlexAttention, eager, eager compiled."""
    keep = None if mask is None else mask[:, None, None, :]
    found = {name: Contender(partial(sdpa, backend, mask=keep), eager="math" in name) for name, backend in SDPA.items()}

    def hide(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if mask is None else torch.where(mask[b, j], score, float("-inf"))

    from torch.nn.attention.flex_attention import flex_attention

    flexible = compiled(flex_attention)
    found["FlexAttention"] = Contender(lambda q, k, v: flexible(q, k, v, score_mod=None if mask is None else hide))
    found["eager"] = Contender(eager, eager=True)
    found["eager, compiled"] = Contender(compiled(eager), eager=True)
    return found


def flex(
    sees: Callable[[Tensor, Tensor], Tensor],
    count: int,
    device: torch.device,
    order: Tensor | None = None,
    entry: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Contender:
    """FlexAttention where query i sees key j if sees(i, j), voxels counted in C order; it skips empty blocks.

    entry: the place of a pair's bias in a table [H, entries], an operand; within it for pairs that do not see, too.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    voxel = torch.arange(count, device=device) if order is None else order

    def rule(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return sees(voxel[i], voxel[j])

    # compiled: all pairs at once would not fit
    pairs: dict[str, Any] = {"_compile": True} if device.type == "cuda" else {}
    blocks = create_block_mask(rule, None, None, count, count, device=str(device), **pairs)
    run = compiled(flex_attention)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            assert bias is not None
            assert entry is not None
            return score + bias[h, entry(voxel[i], voxel[j])]

        found: Tensor = run(q, k, v, score_mod=None if bias is None else biased, block_mask=blocks)
        return found

    return Contender(attend, order)


def natten(grid: tuple[int, int, int], size: int, stride: int = 1) -> Contender:
    """Natten's 3D neighbourhood attention (arXiv 2204.07143), the fused kernel that it picks itself.

    A stride as large as the size makes windows of them.
    """
    na3d = importlib.import_module("natten").na3d

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # [B, H, N, D] as [B, Z, Y, X, H, D], where the voxels' heads lie together already
        volumes = (one.transpose(1, 2).unflatten(1, grid) for one in (q, k, v))
        found: Tensor = na3d(*volumes, kernel_size=(size,) * 3, stride=(stride,) * 3).flatten(1, 3).transpose(1, 2)
        return found

    return Contender(run)
