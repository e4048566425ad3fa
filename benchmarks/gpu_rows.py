"""The rows of the GPU benchmark: operands, what runs on them, the truth in float64, goals.

Operands lie as projections give them ([B, N, H, D] in memory). `small`: sizes for a test of the logic.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from gpu_grids import HEADS, Setup, draw, neighbours, routed, voxels, windows
from gpu_grids import mask as mask_of
from gpu_library import SDPA, Contender, attention_contenders, compiled, sdpa
from torch import Tensor

from petground.kernels.agent_attention.api import agent_attention
from petground.kernels.agent_attention.reference import agent_attention_reference
from petground.kernels.cross_attention import cross_attention
from petground.kernels.cross_attention.reference import cross_attention_reference
from petground.kernels.linear_attention import linear_attention
from petground.kernels.text_to_voxel import text_to_voxel
from petground.kernels.token_merge import merge_tokens
from petground.kernels.topk import topk_indices

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True)
class Row:
    """`share`: goals for forward and backward as parts of the copy bandwidth; `ratio`: times the best library."""

    what: str
    make: Callable[[torch.device, bool, str], Setup]
    share: tuple[float, float] | None = None
    ratio: float | None = None


def _cross(
    device: torch.device, small: bool, by: str, *, dtype: torch.dtype = torch.bfloat16, rows: int = 110592,
    width: int = 32, masked: bool = True, gate: str = "none", activation: str = "softmax",
) -> Setup:  # fmt: skip
    rows, keys, batch = (64, 16, 2) if small else (rows, 64, 2)
    mask = mask_of(device, batch, keys) if masked else None
    tensors = {
        name: draw(device, n, width, dtype, batch, seed)
        for seed, (name, n) in enumerate((("q", rows), ("k", keys), ("v", keys)))
    }
    if gate != "none":
        # features lie with their channels first
        x = draw(device, rows, width, dtype, batch, 7)
        tensors["x"] = x.transpose(2, 3).contiguous().transpose(2, 3)
    own: dict[str, Any] = {"activation": activation, "gate": gate}

    def plain(q: Tensor, k: Tensor, v: Tensor, x: Tensor | None = None) -> Tensor:
        return cross_attention_reference(q, k, v, mask, x=x, **own)

    contenders = attention_contenders(plain, mask)
    if activation != "softmax":
        contenders = {name: one for name, one in contenders.items() if name.startswith("eager")}
    elif gate != "none":
        # the eager ones have the gate in them
        contenders = {
            name: one if name.startswith("eager") else replace(one, run=_gated(one.run))
            for name, one in contenders.items()
        }
    run = partial(cross_attention, mask=mask, backend=by, **own)
    return Setup(tensors, run, contenders, plain, 0 if mask is None else mask.numel())


def _gated(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
    gate = compiled(lambda answer, x: x * (1.0 + torch.tanh(answer)) + answer)

    def run(q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        found: Tensor = gate(attend(q, k, v), x)
        return found

    return run


def _text(device: torch.device, small: bool, by: str) -> Setup:
    queries, voxels = (16, 96) if small else (64, 110592)
    mask = mask_of(device, 2, voxels)
    tensors = {
        name: draw(device, n, 32, torch.bfloat16, 2, seed)
        for seed, (name, n) in enumerate((("q", queries), ("k", voxels), ("v", voxels)))
    }

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return cross_attention_reference(q, k, v, mask)

    run = partial(text_to_voxel, mask=mask, backend=by)
    return Setup(tensors, run, attention_contenders(plain, mask), plain, mask.numel())


def _linear(device: torch.device, small: bool, by: str, *, causal: bool) -> Setup:
    tensors = voxels(device, 4 if small else 32, 2)
    tensors |= {name: tensors[name].abs() * 0.2 for name in "qk"}
    contenders, missing = {}, {}
    if causal:
        plain = partial(linear_attention, causal=True, backend="reference" if small else "chunked")
        try:
            chunked = importlib.import_module("fla.ops.linear_attn").chunk_linear_attn
        except (ImportError, RuntimeError) as error:
            missing["fla"] = str(error)
        else:

            def fla(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                turned = (t.transpose(1, 2) for t in (q, k, v))
                found: Tensor = chunked(*turned, scale=1.0, normalize=False)[0].transpose(1, 2)
                return found

            contenders["fla"] = Contender(fla)
        eager = partial(linear_attention, causal=True, backend="chunked")
        contenders["PyTorch, in chunks, compiled"] = Contender(compiled(eager), eager=True)
    else:
        plain = partial(linear_attention, backend="reference" if small else "chunked")
        contenders["PyTorch, two products"] = Contender(lambda q, k, v: q @ (k.transpose(2, 3) @ v))
    run = partial(linear_attention, causal=causal, backend=by)
    return Setup(tensors, run, contenders, plain, missing=missing)


def _agent(device: torch.device, small: bool, by: str) -> Setup:
    side, agents = (4, 16) if small else (32, 64)
    tensors = voxels(device, side, 2) | {"agents": draw(device, agents, 32, torch.bfloat16, 2, 8)}
    made = torch.Generator(device).manual_seed(5)
    bias = torch.randn(1, HEADS, agents, side**3, generator=made, device=device).to(torch.bfloat16)
    tensors |= {"bias_in": bias, "bias_out": bias.flip(2).transpose(2, 3)}

    def library(
        backend: Any, q: Tensor, k: Tensor, v: Tensor, agents: Tensor, bias_in: Tensor, bias_out: Tensor
    ) -> Tensor:
        batch = len(q)
        read = sdpa(backend, agents, k, v, bias_in.expand(batch, -1, -1, -1))
        return sdpa(backend, q, agents, read, bias_out.expand(batch, -1, -1, -1))

    def run(backend: str, q: Tensor, agents: Tensor, k: Tensor, v: Tensor, **biases: Tensor) -> Tensor:
        return agent_attention(q, agents, k, v, **biases, backend=backend)

    def plain(q: Tensor, agents: Tensor, k: Tensor, v: Tensor, **biases: Tensor) -> Tensor:
        return agent_attention_reference(q, agents, k, v, **biases)

    contenders = {
        f"twice {name}": Contender(partial(library, backend), eager="math" in name) for name, backend in SDPA.items()
    }
    contenders["eager, compiled"] = Contender(compiled(plain), eager=True)
    return Setup(tensors, partial(run, by), contenders, plain)


def _merge(device: torch.device, small: bool, by: str) -> Setup:
    count, groups, width = (64, 16, 32) if small else (32768, 8192, 128)
    made = torch.Generator(device).manual_seed(2)
    tokens = torch.randn(2, count, width, generator=made, device=device).to(torch.bfloat16)
    assignment = torch.randint(groups, (2, count), generator=made, device=device)
    flat = (assignment + torch.arange(2, device=device)[:, None] * groups).flatten()

    def added(tokens: Tensor) -> Tensor:
        wide = tokens.flatten(0, 1).float()
        sums = wide.new_zeros(2 * groups, width).index_add(0, flat, wide)
        sizes = wide.new_zeros(2 * groups).index_add(0, flat, torch.ones_like(wide[:, 0]))
        return (sums / sizes.clamp_min(1.0)[:, None]).to(tokens.dtype).unflatten(0, (2, groups))

    def run(backend: str, tokens: Tensor) -> Tensor:
        return merge_tokens(tokens, assignment, None, groups, backend=backend)[0]

    contenders = {"PyTorch index_add (order of sums not fixed)": Contender(added)}
    return Setup({"tokens": tokens}, partial(run, by), contenders, partial(run, "reference"), 8 * assignment.numel())


def _topk(device: torch.device, small: bool, by: str) -> Setup:
    count, k = (96, 12) if small else (110592, 4096)
    # all different: for ties the library says nothing
    scores = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(s)) for s in (0, 1)])
    tensors = {"scores": scores.to(device).float()}

    def library(scores: Tensor) -> Tensor:
        return scores.topk(k, dim=1).indices.sort(dim=1).values

    contenders = {"torch.topk and sort": Contender(library)}
    run = partial(topk_indices, k=k, backend=by)
    return Setup(tensors, run, contenders, partial(topk_indices, k=k, backend="reference"), choice=True)


_VOXELS = "48³ voxels, 64 text tokens"
_GOALS: dict[str, Any] = {"share": (0.70, 0.50), "ratio": 1.3}
# the first is what the goals were set for
ROWS: dict[str, Row] = {
    "cross": Row(f"cross-attention, {_VOXELS} masked, D 32, bf16", _cross, **_GOALS),
    "cross_unmasked": Row(f"cross-attention, {_VOXELS}, D 32, bf16", partial(_cross, masked=False), **_GOALS),
    "cross_fp16": Row(f"cross-attention, {_VOXELS} masked, D 32, fp16", partial(_cross, dtype=torch.float16), **_GOALS),
    "cross_d64": Row(
        "cross-attention, 32³ voxels, 64 text tokens masked, D 64, bf16",
        partial(_cross, rows=32768, width=64),
        **_GOALS,
    ),
    "cross_gate": Row(
        f"cross-attention and residual tanh gate, {_VOXELS} masked, bf16",
        partial(_cross, gate="residual_tanh"),
        ratio=1.3,
    ),
    "cross_sigmoid": Row(f"sigmoid cross-attention, {_VOXELS} masked, bf16", partial(_cross, activation="sigmoid")),
    "text_to_voxel": Row("64 text tokens to 48³ voxels masked, D 32, bf16", _text),
    "windows": Row("windows of 4³ in 48³ voxels, learned bias, bf16", windows, ratio=1.0),
    "windows_unbiased": Row(
        "windows of 4³ in 48³ voxels, no bias, bf16",
        partial(windows, biased=False),
        ratio=1.0,
    ),
    "neighbourhood": Row("neighbourhoods of 7³ in 32³ voxels, bf16", neighbours, ratio=1.0),
    "routed": Row("regions of 4³ in 48³ voxels, each to 4 others, bf16", routed),
    "agents": Row("32³ voxels through 64 agents, learned biases, bf16", _agent),
    "linear": Row("linear attention, 32³ voxels, D 32, bf16", partial(_linear, causal=False)),
    "linear_causal": Row("linear attention, causal, 32³ voxels, D 32, bf16", partial(_linear, causal=True)),
    "merge": Row("32³ tokens of 128 channels merged into 8192, bf16", _merge),
    "topk": Row("4096 highest of 48³ scores, fp32", _topk),
}
