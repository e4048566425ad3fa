"""What ranks a voxel: attention maps made from the tokens themselves, without parameters.

The papers of this family read the maps of a vision transformer. A U-Net stage has none, and no class token: here
queries and keys are the tokens, split into heads, and the class token's place is taken by the sentence's pooled state
or by the mean token. Every map is [B, N], not negative, zero on padding, and sums to one over the real voxels. Maps are
in float32 at least, whatever the tokens and autocast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from petground.kernels._shared.precision import unrounded
from petground.kernels.token_merge import merge_tokens, unmerge_tokens
from petground.models.blocks.attention.softmax import masked_softmax
from petground.models.blocks.backend import TokenBackend
from petground.models.blocks.contract import BlockInputError, Grid, check_tokens

__all__ = [
    "check_layers",
    "check_sample",
    "class_attention",
    "coarse_layers",
    "global_query",
    "in_heads",
    "masked_mean",
    "normalised",
    "on_voxels",
    "received_attention",
    "split_heads",
    "text_attention",
]

_CHUNK = 2**21  # numbers of a map held at a time


def check_layers(
    block: str, tokens: Tensor, *, scores: Tensor | None, grid: Grid | None, **given: Tensor | None
) -> Tensor | None:
    """`check_tokens`, for scores that may be of one layer [B, N] or of several [B, L, N] -> [B, L, N] or None."""
    wide = torch.promote_types(tokens.dtype, torch.float32)  # they choose
    if scores is None or scores.ndim != 3:
        check_tokens(block, tokens, scores=scores, grid=grid, **given)
        return None if scores is None else scores[:, None].to(wide)
    if scores.shape[1] == 0:
        raise BlockInputError(block, "scores", f"is {tuple(scores.shape)}", "give at least one layer [B, L, N]")
    check_tokens(block, tokens, scores=scores[:, 0], grid=grid, **given)
    return scores.to(wide)


def split_heads(block: str, channels: int, heads: int) -> int:
    """Channels of a head. Raises ValueError when the heads do not divide the channels."""
    if heads < 1 or channels % heads:
        raise ValueError(f"{block}: heads={heads} does not divide channels={channels}")
    return channels // heads


def check_sample(block: str, sample: int) -> int:
    """Raises ValueError for a negative number."""
    if sample < 0:
        raise ValueError(f"{block}: sample={sample}; give how many voxels ask, 0 for all")
    return sample


def in_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, C] -> [B, heads, N, C / heads]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """X [B, N, C], mask [B, N] bool -> [B, C], the mean of the real ones; zeros where there is none."""
    if mask is None:
        return x.mean(dim=1)
    wide = torch.promote_types(x.dtype, torch.float32)  # a sum over voxels and their number leave 16 bits
    kept = x.masked_fill(~mask[..., None], 0.0).sum(dim=1, dtype=wide)
    return (kept / mask.sum(dim=1, keepdim=True).clamp(min=1)).to(x.dtype)


@unrounded
def global_query(
    tokens: Tensor, mask: Tensor | None, text: Tensor | None, text_mask: Tensor | None, query: str
) -> Tensor:
    """[B, C]: the sentence's mean state ("text"; the mean voxel where there is no word) or the mean voxel ("mean")."""
    mean = masked_mean(tokens, mask)
    if query == "mean" or text is None:
        return mean
    pooled = masked_mean(text, text_mask)
    return pooled if text_mask is None else torch.where(text_mask.any(dim=1, keepdim=True), pooled, mean)


def class_attention(query: Tensor, tokens: Tensor, mask: Tensor | None, heads: int = 1) -> Tensor:
    """mean_h softmax_n(q^h . x_n^h / sqrt(D)): query [B, C], tokens [B, N, C] -> [B, N]."""
    return text_attention(query[:, None], None, tokens, mask, heads)


@unrounded
def text_attention(
    text: Tensor, text_mask: Tensor | None, tokens: Tensor, mask: Tensor | None, heads: int = 1
) -> Tensor:
    """Mean over heads and real words of each word's softmax over the voxels: text [B, P, C] -> [B, N]."""
    q, k = (in_heads(x, heads) for x in (text, tokens))
    logits = q @ k.transpose(-1, -2) * k.shape[-1] ** -0.5
    weights = masked_softmax(logits, None if mask is None else mask[:, None, None]).mean(dim=1)
    return masked_mean(weights, text_mask)


@unrounded
def received_attention(
    tokens: Tensor, mask: Tensor | None, heads: int = 1, senders: Tensor | None = None, sample: int = 0
) -> Tensor:
    """What each voxel gets: mean over heads and senders of softmax(x x^T / sqrt(D)), tokens [B, N, C] -> [B, N].

    senders: [B, N] bool, whose attention counts; None: every real voxel. sample: of these, only the ones among about so
    many places evenly apart; 0: all. The N x N map is never held: some queries at a time, their columns added up.
    """
    batch, count, channels = tokens.shape
    if senders is None:
        senders = torch.ones(batch, count, dtype=torch.bool, device=tokens.device) if mask is None else mask
    keys, x = None if mask is None else mask[:, None, None], in_heads(tokens, heads)
    apart = -(-count // sample) if sample else 1
    asking, senders = x[:, :, ::apart], senders[:, ::apart]
    wide = torch.promote_types(tokens.dtype, torch.float32)
    share = senders.to(wide) / senders.sum(dim=1, keepdim=True).clamp(min=1)
    total = tokens.new_zeros(batch, count, dtype=wide)
    step = max(1, _CHUNK // (batch * heads * count))
    for start in range(0, asking.shape[2], step):
        part = slice(start, start + step)
        logits = asking[:, :, part] @ x.transpose(-1, -2) * (channels // heads) ** -0.5
        total = total + (masked_softmax(logits, keys).mean(dim=1) * share[:, part, None]).sum(dim=1)
    return total.to(tokens.dtype)


def normalised(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores [..., N] of one sign (negative ones count as zero) -> shares that sum to one over the real voxels."""
    real = scores.clamp(min=0) if mask is None else scores.clamp(min=0).masked_fill(~mask, 0.0)
    total = real.sum(dim=-1, keepdim=True, dtype=torch.promote_types(real.dtype, torch.float32))
    return (real / torch.where(total > 0, total, 1.0)).to(real.dtype)


@unrounded
def coarse_layers(
    tokens: Tensor, mask: Tensor | None, grid: Grid | None, levels: int, backend: TokenBackend = "auto"
) -> list[tuple[Tensor, ...]]:
    """The voxels at several resolutions, standing for an encoder's layers: level l averages cubes of 2^l voxels.

    Returns for each level its tokens [B, M, C], their mask [B, M] and each voxel's cell [B, N] (-1: padding). Without a
    grid there is one level, the voxels themselves.
    """
    batch, count = tokens.shape[:2]
    real = torch.ones(batch, count, dtype=torch.bool, device=tokens.device) if mask is None else mask
    own = torch.arange(count, device=tokens.device).expand(batch, -1).masked_fill(~real, -1)
    layers: list[tuple[Tensor, ...]] = [(tokens, real, own)]
    for level in range(1, 1 if grid is None else levels):
        cells, number = _cells(grid, 2**level, tokens.device) if grid is not None else (own, count)
        cells = cells.expand(batch, -1).masked_fill(~real, -1)
        means, sizes = merge_tokens(tokens, cells, None, number, backend=backend)
        layers.append((means, sizes > 0, cells))
    return layers


def on_voxels(level_map: Tensor, cells: Tensor, mask: Tensor | None, backend: TokenBackend = "auto") -> Tensor:
    """A coarse level's map [B, M] on the voxels [B, N], summing to one again."""
    return normalised(unmerge_tokens(level_map[..., None], cells, backend=backend)[..., 0], mask)


def _cells(grid: Grid, factor: int, device: torch.device) -> tuple[Tensor, int]:
    """The cube of factor^3 voxels that each voxel lies in [1, N], and how many there are; the last may be smaller."""
    index = [torch.arange(n, device=device) // factor for n in grid.shape_zyx]
    z, y, x = [math.ceil(n / factor) for n in grid.shape_zyx]
    cell = (index[0][:, None, None] * y + index[1][None, :, None]) * x + index[2]
    return cell.reshape(1, -1), z * y * x
