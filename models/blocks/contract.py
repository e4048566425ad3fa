"""What a block is: the slots' interfaces, how a block is registered, and the checks that all of a slot share.

- attention:       (q, k, v, mask, bias, grid, cross) -> out, and the map when asked for
- token_reduction: (tokens, scores, mask, grid, text) -> fewer tokens and the exact way back to the dense grid
- mixer:           3D features -> 3D features of the same shape
- fusion:          (x, tokens, mask, box) -> voxel features and text tokens, both of the same shape as they came

A block of any slot may have a loss of its own, in training: see `own_losses`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "Block",
    "BlockError",
    "BlockInputError",
    "Grid",
    "Pattern",
    "Reduced",
    "TextUse",
    "check_attention",
    "check_features",
    "check_fusion",
    "check_text",
    "check_tokens",
]

Pattern = Literal["self", "cross", "causal"]
TextUse = Literal["ignores", "reads", "needs"]  # of a token_reduction, its `text_use`; "reads": works without, too


class BlockError(ValueError):
    """An unknown slot, block or option; the message lists the nearest names."""


class BlockInputError(ValueError):
    """Tensors that a block cannot serve; the message names block, argument and remedy."""

    def __init__(self, block: str, argument: str, what: str, remedy: str):
        super().__init__(f"{block}: {argument} {what}; {remedy}")


@dataclass(frozen=True)
class Block:
    """One registered block.

    Args:
        slot: the place it fits.
        key: its name in a config.
        cls: the class; a preset of a composable class has its fixed options in `preset`.
        paper: where it was published.
        summary: one line.
        preset: options that make this key out of `cls`; a config cannot change them.
        patterns: what an attention block serves: self (queries are the keys' tokens), cross, causal.
        cost: time in N queries, M keys, d channels, as the paper states it.
        serves: attention: of "bias" (an additive bias), "weights" (the map on request), "grid" (needs the 3D grid),
            "types" (q, k, v of another floating type than its parameters; under autocast every block takes them).
            token_reduction: of "text", "scores": what it cannot do without.
            fusion: of "box" (reads where a patch lies, when its `coordinates` are on), "skip" (reads the encoder's
            features of its stage), "tokens" (gives back changed tokens), "identity" (starts as the identity).
        idle: parameters that may get no gradient in a training step of the network: the pattern of their names behind
            the stage's number, as in "voxels.attention.dwc.*" or short "attention.dwc.*", and when. Training on several
            devices has to look for them (DDP's find_unused_parameters).
        holds: options that name an attention block, `{name: ...}` with its options, and the pattern it has to serve.
            The class gets it built, for its own channels and heads.
        kernels_need: operator -> option that its kernels need, as a config has it, where the default leaves them out.
        form: which published form was built, where sources differ or the equation was taken from memory.
        property: what holds of it whatever its weights, as its tests assert.
    """

    slot: str
    key: str
    cls: type[nn.Module]
    paper: str
    summary: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    patterns: frozenset[str] = frozenset()
    cost: str = ""
    serves: frozenset[str] = frozenset()
    idle: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, Pattern] = field(default_factory=dict)
    kernels_need: Mapping[str, str] = field(default_factory=dict)
    form: str = ""
    property: str = ""


@dataclass(frozen=True)
class Grid:
    """Where N = Z*Y*X tokens lie: token n is the voxel n of the array in C order. spacing in mm."""

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def tokens(self) -> int:
        return math.prod(self.shape_zyx)

    def dense(self, tokens: Tensor) -> Tensor:
        """[..., N, C] -> [..., C, Z, Y, X]."""
        return tokens.reshape(*tokens.shape[:-2], *self.shape_zyx, tokens.shape[-1]).movedim(-1, -4)

    def flat(self, features: Tensor) -> Tensor:
        """[..., C, Z, Y, X] -> [..., N, C]."""
        return features.movedim(-4, -1).flatten(-4, -2)


@dataclass(frozen=True, eq=False)
class Reduced:
    """Fewer tokens and the way back.

    tokens: [B, K, C]. mask: [B, K] bool, True where a token is real (entries of a batch may keep different numbers).
    kept: [B, K] the voxel whose place a token has, -1 for a token that stands for several and has none of its own.
    unmerge: [B, K, E] -> [B, N, E], linear: each voxel's value from the reduced ones; exact for kept voxels.
    gain: [B, K], what a layer adds to a token is multiplied by it before the un-merge (a router's weight); None: 1.
    carry: [B, N], what a voxel brings past the layer is multiplied by it (mixture of depths); None: 1.
    """

    tokens: Tensor
    mask: Tensor
    kept: Tensor
    unmerge: Callable[[Tensor], Tensor]
    gain: Tensor | None = None
    carry: Tensor | None = None


def check_attention(
    block: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    bias: Tensor | None = None,
    grid: Grid | None = None,
    causal: bool = False,
    cross: bool = False,
    patterns: Iterable[str] = ("self", "cross"),
    takes_bias: bool = True,
    needs_grid: bool = False,
) -> None:
    """Raises BlockInputError unless q [B, H, N, D], k [B, H, M, D], v [B, H, M, E], mask [B, M] bool, bias
    [B or 1, H or 1, N, M] of q's type and the queries' grid fit together and the block serves them.

    The queries are the keys' tokens, so that M = N and the mask is the queries', too, unless `cross` says otherwise:
    lengths tell nothing, as they may be equal by chance.
    """
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.ndim != 4 or not tensor.is_floating_point():
            raise BlockInputError(block, name, f"is {tuple(tensor.shape)} {tensor.dtype}", "give floats [B, H, N, D]")
        if tensor.device != q.device or tensor.dtype != q.dtype:
            raise BlockInputError(block, name, f"is {tensor.dtype} on {tensor.device}", f"as q: {q.dtype} {q.device}")
        if 0 in tensor.shape:
            raise BlockInputError(block, name, f"has a zero-sized axis {tuple(tensor.shape)}", "give at least one")
    if k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3] or v.shape[:3] != k.shape[:3]:
        shapes = f"{tuple(k.shape)} and v {tuple(v.shape)} do not go with q {tuple(q.shape)}"
        raise BlockInputError(block, "k", shapes, "same batch and heads, k as wide as q, v as long as k")
    rows, cols = q.shape[2], k.shape[2]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (q.shape[0], cols) or mask.device != q.device):
        raise BlockInputError(
            block, "mask", f"is {mask.dtype} {tuple(mask.shape)} on {mask.device}", f"bool {(q.shape[0], cols)}"
        )
    if bias is not None:
        if not takes_bias:
            raise BlockInputError(block, "bias", "is not served", "leave it out, or use a softmax block")
        if bias.dtype != q.dtype or bias.device != q.device:
            remedy = f"as q, {q.dtype} on {q.device}, to be added to the scores (which keys count says the mask)"
            raise BlockInputError(block, "bias", f"is {bias.dtype} on {bias.device}", remedy)
        wanted = (q.shape[0], q.shape[1], rows, cols)
        if bias.ndim != 4 or any(n not in (1, w) for n, w in zip(bias.shape, wanted, strict=True)):
            raise BlockInputError(block, "bias", f"is {tuple(bias.shape)}", f"broadcastable to {wanted}")
    if grid is not None and grid.tokens != rows:
        raise BlockInputError(block, "grid", f"{grid.shape_zyx} has {grid.tokens} voxels", f"q has {rows} tokens")
    if needs_grid and grid is None:
        raise BlockInputError(block, "grid", "is missing", "give the 3D grid of the tokens")
    served = set(patterns)
    if cross and ("cross" not in served or causal):
        raise BlockInputError(
            block, "cross", "is not served here", f"patterns: {', '.join(sorted(served))}, one of them"
        )
    if causal and ("causal" not in served or rows != cols):
        raise BlockInputError(block, "causal", "is not served here", f"patterns: {', '.join(sorted(served))}, M = N")
    if not causal and not cross and rows != cols:
        remedy = "say cross=True" if "cross" in served else "this block serves self-attention"
        raise BlockInputError(block, "k", f"has {cols} keys for {rows} queries", remedy)
    if not causal and not served & {"self", "cross"}:
        raise BlockInputError(block, "causal", "is False", "this block serves only the causal pattern")


def check_tokens(
    block: str,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    scores: Tensor | None = None,
    grid: Grid | None = None,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
) -> None:
    """Raises BlockInputError unless tokens [B, N, C], mask [B, N] bool, scores [B, N], grid and text fit together."""
    if tokens.ndim != 3 or 0 in tokens.shape or not tokens.is_floating_point():
        raise BlockInputError(block, "tokens", f"is {tuple(tokens.shape)} {tokens.dtype}", "give floats [B, N, C]")
    wanted = tuple(tokens.shape[:2])
    if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != wanted):
        raise BlockInputError(block, "mask", f"is {mask.dtype} {tuple(mask.shape)}", f"bool {wanted}")
    if scores is not None and (not scores.is_floating_point() or tuple(scores.shape) != wanted):
        raise BlockInputError(block, "scores", f"is {scores.dtype} {tuple(scores.shape)}", f"floats {wanted}")
    for name, tensor in (("mask", mask), ("scores", scores)):
        if tensor is not None and tensor.device != tokens.device:
            raise BlockInputError(block, name, f"is on {tensor.device}", f"move it to {tokens.device}")
    if grid is not None and grid.tokens != tokens.shape[1]:
        what = f"{grid.shape_zyx} has {grid.tokens} voxels"
        raise BlockInputError(block, "grid", what, f"tokens has {tokens.shape[1]}")
    check_text(block, tokens, text, text_mask)


def check_text(block: str, tokens: Tensor, text: Tensor | None, text_mask: Tensor | None) -> None:
    """Raises BlockInputError unless text [B, P, C] and text_mask [B, P] bool go with the tokens [B, N, C].

    Under autocast the text's type may be another.
    """
    if text is None:
        if text_mask is not None:
            raise BlockInputError(block, "text_mask", "is of no text", "give the text, too, or neither")
        return
    batch, _, channels = tokens.shape
    if text.ndim != 3 or text.shape[0] != batch or text.shape[2] != channels or text.shape[1] == 0:
        remedy = f"give [{batch}, P, {channels}], at least one word"
        raise BlockInputError(block, "text", f"is {tuple(text.shape)}", remedy)
    mixed = text.is_floating_point() and torch.is_autocast_enabled(tokens.device.type)
    if text.device != tokens.device or (text.dtype != tokens.dtype and not mixed):
        remedy = f"as the tokens: {tokens.dtype} on {tokens.device}"
        raise BlockInputError(block, "text", f"is {text.dtype} on {text.device}", remedy)
    if text_mask is not None and (
        text_mask.dtype != torch.bool or text_mask.shape != text.shape[:2] or text_mask.device != text.device
    ):
        what = f"is {text_mask.dtype} {tuple(text_mask.shape)} on {text_mask.device}"
        raise BlockInputError(block, "text_mask", what, f"bool {tuple(text.shape[:2])} on {text.device}")


def check_features(block: str, x: Tensor, channels: int) -> None:
    """Raises BlockInputError unless x is [B, channels, Z, Y, X] of floats with no empty axis."""
    if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape or not x.is_floating_point():
        raise BlockInputError(block, "x", f"is {tuple(x.shape)} {x.dtype}", f"give floats [B, {channels}, Z, Y, X]")


def check_fusion(
    block: str,
    x: Tensor,
    tokens: Tensor,
    mask: Tensor,
    box: Tensor | None,
    *,
    channels: int,
    text_channels: int,
    skip: Tensor | None = None,
) -> None:
    """Raises BlockInputError unless the streams of a fusion fit together.

    x [B, channels, Z, Y, X], tokens [B, P, text_channels] and skip [E, channels, Z, Y, X] or None of one floating type
    and device (under autocast the types may differ), mask [B, P] bool and box [E, 2, 3] or None, where B = E times the
    sentences of an exam, which stand together.
    """
    check_features(block, x, channels)
    if tokens.ndim != 3 or 0 in tokens.shape or not tokens.is_floating_point() or tokens.shape[2] != text_channels:
        what = f"is {tuple(tokens.shape)} {tokens.dtype}"
        raise BlockInputError(block, "tokens", what, f"give floats [B, P, {text_channels}], P of at least one")
    batch = x.shape[0]
    if tokens.shape[0] != batch:
        raise BlockInputError(block, "tokens", f"has {tokens.shape[0]} entries", f"x has {batch}: one sentence each")
    for name, tensor in (("tokens", tokens), ("skip", skip)):
        if tensor is None or tensor.dtype == x.dtype:
            continue
        if not tensor.is_floating_point() or not torch.is_autocast_enabled(x.device.type):
            raise BlockInputError(block, name, f"is {tensor.dtype}", f"as x: {x.dtype}, or use autocast")
    wanted = (batch, tokens.shape[1])
    if mask.dtype != torch.bool or tuple(mask.shape) != wanted:
        raise BlockInputError(block, "mask", f"is {mask.dtype} {tuple(mask.shape)}", f"bool {wanted}, True = real")
    for name, tensor in (("tokens", tokens), ("mask", mask), ("box", box), ("skip", skip)):
        if tensor is not None and tensor.device != x.device:
            raise BlockInputError(block, name, f"is on {tensor.device}", f"move it to {x.device}, where x is")
    if box is not None and (
        box.ndim != 3 or tuple(box.shape[1:]) != (2, 3) or not len(box) or batch % len(box) or box.dtype == torch.bool
    ):
        remedy = f"give corners [E, 2, 3] (z, y, x), E a divisor of {batch}"
        raise BlockInputError(block, "box", f"is {box.dtype} {tuple(box.shape)}", remedy)
    if skip is not None and (
        skip.ndim != 5 or tuple(skip.shape[1:]) != tuple(x.shape[1:]) or not len(skip) or batch % len(skip)
    ):
        remedy = f"give [E, {', '.join(map(str, x.shape[1:]))}], E a divisor of {batch}"
        raise BlockInputError(block, "skip", f"is {tuple(skip.shape)}", remedy)
