"""Operands of the GPU benchmark, and the rows over grids of voxels: windows, neighbourhoods, routed regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from gpu_library import SDPA, Contender, flex, natten, sdpa
from torch import Tensor

from petground.kernels.routed_attention import routed_attention
from petground.kernels.window_attention import neighbourhood_attention, window_attention

__all__ = ["HEADS", "Setup", "draw", "mask", "neighbours", "routed", "voxels", "windows"]

HEADS = 8


@dataclass(frozen=True)
class Setup:
    """A row's operands (by name, all with gradients unless `choice`), what runs, and the same in float64."""

    tensors: dict[str, Tensor]
    petground: Callable[..., Tensor]
    contenders: dict[str, Contender]
    plain: Callable[..., Tensor]
    extra_bytes: int = 0  # read besides the operands: masks, lists
    choice: bool = False
    missing: dict[str, str] | None = None  # contenders that are not here, and why


def draw(device: torch.device, rows: int, width: int, dtype: torch.dtype, batch: int, seed: int) -> Tensor:
    made = torch.Generator(device).manual_seed(seed)
    found = torch.randn(batch, rows, HEADS, width, generator=made, device=device, dtype=torch.float32)
    return found.to(dtype).transpose(1, 2)


def mask(device: torch.device, batch: int, count: int) -> Tensor:
    mask = torch.rand(batch, count, generator=torch.Generator(device).manual_seed(9), device=device) > 0.25
    mask[:, 0] = True
    return mask


def voxels(device: torch.device, side: int, batch: int = 1, width: int = 32) -> dict[str, Tensor]:
    return {n: draw(device, side**3, width, torch.bfloat16, batch, seed) for seed, n in enumerate("qkv")}


def _tiles(side: int, tile: tuple[int, int, int], device: torch.device) -> Tensor:
    """Voxels of a cube in the order of its tiles."""
    z, y, x = tile
    places = torch.arange(side**3, device=device).reshape(side // z, z, side // y, y, side // x, x)
    return places.permute(0, 2, 4, 1, 3, 5).reshape(-1)


def _cut(volume: Tensor, side: int) -> Tensor:
    """[B, H, N, D] to windows of 4^3, [B W, H, 64, D], as Swin's code cuts: a view, turned, and one copy."""
    parts = volume.unflatten(2, (side // 4, 4, side // 4, 4, side // 4, 4))
    return parts.permute(0, 2, 4, 6, 1, 3, 5, 7, 8).reshape(-1, volume.shape[1], 64, volume.shape[3])


def _together(windows: Tensor, side: int) -> Tensor:
    """The way back."""
    parts = windows.unflatten(2, (4, 4, 4)).unflatten(0, (-1, *(side // 4,) * 3))
    return parts.permute(0, 4, 1, 5, 2, 6, 3, 7, 8).flatten(2, 7)


def windows(device: torch.device, small: bool, by: str, *, biased: bool = True) -> Setup:
    side = 8 if small else 48
    tensors, order = voxels(device, side, 2), _tiles(side, (4, 4, 4), device)
    if biased:
        made = torch.Generator(device).manual_seed(5)
        tensors["bias"] = torch.randn(HEADS, 7**3, generator=made, device=device)

    def places(i: Tensor, j: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(i // step % side, j // step % side) for step in (side * side, side, 1)]

    def sees(i: Tensor, j: Tensor) -> Tensor:
        z, y, x = (a // 4 == b // 4 for a, b in places(i, j))
        return z & y & x

    def entry(i: Tensor, j: Tensor) -> Tensor:
        z, y, x = ((a - b + 3).clamp(0, 6) for a, b in places(i, j))
        return (z * 7 + y) * 7 + x

    pairs = entry(order[:64, None], order[None, :64])

    def library(backend: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        added = None if bias is None else bias[:, pairs].to(q.dtype)[None]
        return _together(sdpa(backend, *(_cut(t, side) for t in (q, k, v)), added), side)

    own: dict[str, Any] = {"grid": (side,) * 3, "window": (4, 4, 4)}
    contenders = {
        f"windows cut out, {name}": Contender(partial(library, backend), eager="math" in name)
        for name, backend in SDPA.items()
    }
    contenders["FlexAttention, voxels in windows"] = flex(sees, side**3, device, order, entry)
    missing = {}
    if biased:
        missing["natten"] = "takes no bias: see windows_unbiased"
    else:
        missing = _natten(contenders, side, 4, 4)
    plain = partial(window_attention, backend="chunked", **own)
    return Setup(tensors, partial(window_attention, backend=by, **own), contenders, plain, missing=missing)


def _natten(contenders: dict[str, Contender], side: int, size: int, stride: int = 1) -> dict[str, str]:
    """Puts natten among the contenders where it is; else why not."""
    try:
        contenders["natten"] = natten((side,) * 3, size, stride)
    except (ImportError, OSError, RuntimeError) as error:
        return {"natten": str(error)}
    return {}


def neighbours(device: torch.device, small: bool, by: str) -> Setup:
    side, size = (8, 3) if small else (32, 7)
    tensors = voxels(device, side, 1)

    def sees(i: Tensor, j: Tensor) -> Tensor:
        found = None
        for step in (side * side, side, 1):
            a, b = i // step % side, j // step % side
            first = (a - size // 2).clamp(0, side - size)
            near = (b >= first) & (b < first + size)
            found = near if found is None else found & near
        assert found is not None
        return found

    tile = (4, 4, 8)  # 128 voxels, a block of FlexAttention
    contenders = {
        "FlexAttention": flex(sees, side**3, device),
        "FlexAttention, voxels in tiles": flex(sees, side**3, device, _tiles(side, tile, device)),
    }
    missing = _natten(contenders, side, size)
    own: dict[str, Any] = {"grid": (side,) * 3, "size": (size,) * 3}
    plain = partial(neighbourhood_attention, backend="chunked", **own)
    return Setup(tensors, partial(neighbourhood_attention, backend=by, **own), contenders, plain, missing=missing)


def routed(device: torch.device, small: bool, by: str) -> Setup:
    side, top = (8, 3) if small else (48, 4)
    tensors, regions = voxels(device, side, 2), (side // 4) ** 3
    drawn = torch.rand(2, regions, regions, generator=torch.Generator(device).manual_seed(6), device=device)
    table = drawn.topk(top, dim=-1).indices

    taken = (table + torch.arange(2, device=device)[:, None, None] * regions).flatten()

    def gathered(backend: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (_cut(t, side) for t in (q, k, v))
        k, v = (t.index_select(0, taken).unflatten(0, (-1, top)).transpose(1, 2).flatten(2, 3) for t in (k, v))
        return _together(sdpa(backend, q, k, v), side)  # k and v [B S, H, T 64, D]

    own: dict[str, Any] = {"grid": (side,) * 3, "region": (4, 4, 4), "table": table}
    plain = partial(routed_attention, backend="chunked", **own)
    contenders = {
        f"regions gathered, {name}": Contender(partial(gathered, backend), eager="math" in name)
        for name, backend in SDPA.items()
    }
    return Setup(tensors, partial(routed_attention, backend=by, **own), contenders, plain, 8 * table.numel())
