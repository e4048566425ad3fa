"""The same numbers as timm's, natten's and attn-gym's operators where they compute the same thing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.attention.dual_window_channel import channel_attention
from petground.models.blocks.attention.window_attention import WindowAttention
from petground.models.blocks.contract import Grid
from petground.models.registry import build
from tests.models.blocks.peers import timm

HEADS, DIM = 2, 4
CHANNELS = HEADS * DIM


def _heads(projected: Tensor) -> list[Tensor]:
    """[B, H, W, 3 C] of a 2D layer -> q, k, v [B, heads, N, D]."""
    flat = projected.flatten(1, 2).unflatten(-1, (3, HEADS, DIM))
    return [one.transpose(1, 2) for one in flat.unbind(2)]


def _plain(module: nn.Module) -> nn.Module:
    """Without its output projection."""
    module.proj = nn.Identity()
    return module.double()


@pytest.mark.parametrize("shift", ["plain", "shifted"])
def test_swin_is_timms_on_a_grid_one_deep(shift: str) -> None:
    with timm("timm.models.swin_transformer") as (swin,):
        torch.manual_seed(0)
        block = swin.SwinTransformerBlock(
            CHANNELS, (12, 8), num_heads=HEADS, window_size=4, shift_size=2 if shift == "shifted" else 0
        ).double()
        _plain(block.attn)
        nn.init.normal_(block.attn.relative_position_bias_table)
        x = torch.randn(2, 12, 8, CHANNELS, dtype=torch.float64)
        with torch.no_grad():
            theirs = block._attn(x)
            q, k, v = _heads(block.attn.qkv(x))
        ours = build("attention", "swin_window_3d", channels=CHANNELS, num_heads=HEADS, window=[1, 4, 4], shift=shift)
        table = block.attn.relative_position_bias_table.detach()
        ours.positions[0].table = nn.Parameter(table.T.reshape(HEADS, 1, 7, 7).clone())
        with torch.no_grad():
            out, _ = ours.double()(q, k, v, grid=Grid((1, 12, 8)))
    assert torch.allclose(out.transpose(1, 2).flatten(2), theirs.flatten(1, 2), atol=1e-10)


def test_swin_v2_is_timms_on_a_grid_one_deep() -> None:
    with timm("timm.models.swin_transformer_v2") as (swin,):
        torch.manual_seed(0)
        layer = _plain(swin.WindowAttention(CHANNELS, (4, 4), HEADS))
        nn.init.normal_(layer.q_bias)
        nn.init.constant_(layer.logit_scale[0], 9.0)  # above the limit of 1 / 0.01
        layer._make_pair_wise_relative_positions(dtype=torch.float64)
        x = torch.randn(3, 16, CHANNELS, dtype=torch.float64)
        with torch.no_grad():
            theirs = layer(x)
            biases = torch.cat([layer.q_bias, layer.k_bias, layer.v_bias])
            q, k, v = _heads((layer.qkv(x) + biases).reshape(3, 4, 4, -1))
        # theirs counts 8 / (window - 1) a voxel and logarithms to the base 8
        ours = WindowAttention(
            CHANNELS, HEADS, score="cosine", position="log_mm", window=(1, 4, 4), shift="plain", distance="short",
            halo=(0, 0, 0), unit_mm=1.0,
        )  # fmt: skip
        bias = ours.positions[0].double()
        with torch.no_grad():
            bias.inward.weight.zero_()
            bias.inward.weight[:, 1:] = layer.cpb_mlp[0].weight / math.log(8)
            bias.inward.bias.copy_(layer.cpb_mlp[0].bias)
            bias.outward.weight.copy_(layer.cpb_mlp[2].weight)
            ours.double().log_scale[0].copy_(layer.logit_scale)
            out, _ = ours(q, k, v, grid=Grid((1, 4, 4), (1.0, 8 / 3, 8 / 3)))
    assert torch.allclose(out.transpose(1, 2).flatten(2), theirs, atol=1e-9)


def test_halo_is_timms_away_from_the_border() -> None:
    """At the border theirs counts the zeros outside as keys; ours does not."""
    with timm("timm.layers.halo_attn") as (halo,):
        torch.manual_seed(0)
        layer = halo.HaloAttn(CHANNELS, num_heads=HEADS, dim_head=DIM, block_size=2, halo_size=1).double()
        x = torch.randn(1, CHANNELS, 8, 8, dtype=torch.float64)
        with torch.no_grad():
            theirs = layer(x)
            grid = Grid((1, 8, 8))
            q = layer.q(x).flatten(2).unflatten(1, (HEADS, DIM)).transpose(2, 3)
            k, v = layer.kv(x).flatten(2).unflatten(1, (HEADS, 2 * DIM)).transpose(2, 3).split(DIM, dim=-1)
            ours = build("attention", "halo", channels=CHANNELS, num_heads=HEADS, window=[1, 2, 2], halo=[0, 1, 1])
            ours = ours.double()
            for axis, table in ((0, None), (1, layer.pos_embed.height_rel), (2, layer.pos_embed.width_rel)):
                mine = ours.positions[0].axes[axis]
                mine.zero_()
                if table is not None:  # theirs: key less query in the whole neighbourhood; ours: query less key
                    reach = (mine.shape[0] - 1) // 2
                    centre = (table.shape[0] - 1) // 2 + 1  # the query's block starts one voxel in
                    mine.copy_(table[centre - reach : centre + reach + 1].flip(0))
            out = grid.dense(ours(q, k, v, grid=grid)[0].transpose(1, 2).flatten(2))[:, :, 0]
    assert torch.allclose(out[..., 2:6, 2:6], theirs[..., 2:6, 2:6], atol=1e-10)
    assert not torch.allclose(out[..., :2, :2], theirs[..., :2, :2], atol=1e-3)


@pytest.mark.parametrize("version", ["ChannelAttention", "ChannelAttentionV2"])
def test_channel_attention_is_timms(version: str) -> None:
    with timm("timm.models.davit") as (davit,):
        torch.manual_seed(0)
        layer = _plain(getattr(davit, version)(CHANNELS, num_heads=HEADS))
        x = torch.randn(2, 30, CHANNELS, dtype=torch.float64)
        with torch.no_grad():
            theirs = layer(x)
            q, k, v = layer.qkv(x).chunk(3, dim=-1)
            if version == "ChannelAttention":  # its names stand one place further on
                q, k, v = k, v, q
            out = channel_attention(q, k, v, groups=HEADS, by_positions=version.endswith("V2"))
    assert torch.allclose(out, theirs, atol=1e-10)


def _na3d(q: Tensor, k: Tensor, v: Tensor, grid: Grid, **pattern: Any) -> Tensor:
    """[B, H, N, D] by natten's neighbourhood attention."""
    functional = pytest.importorskip("natten.functional", reason="natten is missing: extra peers")
    dense = [one.transpose(1, 2).unflatten(1, grid.shape_zyx) for one in (q, k, v)]
    return functional.na3d(*dense, **pattern).flatten(1, 3).transpose(1, 2)


def _bare(**options: Any) -> nn.Module:
    given = {"position": "none", "shift": "plain", "distance": "short", "halo": (0, 0, 0), **options}
    return WindowAttention(16, 2, **given)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ours", "theirs", "rim"),
    [
        ({"window": (2, 3, 2)}, {"kernel_size": (2, 3, 2), "stride": (2, 3, 2)}, (0, 0, 0)),
        (
            {"window": (2, 3, 2), "distance": "long", "interval": (2, 1, 2)},
            {"kernel_size": (2, 3, 2), "stride": (2, 3, 2), "dilation": (2, 1, 2)},
            (0, 0, 0),
        ),
        ({"window": (2, 2, 2), "halo": (1, 2, 1)}, {"kernel_size": (4, 6, 4), "stride": (2, 2, 2)}, (2, 2, 2)),
        ({"window": (1, 1, 1), "halo": (1, 1, 1)}, {"kernel_size": (3, 3, 3)}, (1, 1, 1)),
    ],
    ids=["windows", "interval", "halo", "neighbourhood"],
)
def test_windows_are_nattens(ours: dict[str, Any], theirs: dict[str, Any], rim: tuple[int, int, int]) -> None:
    """At the border natten moves the neighbourhood inwards and ours is cut off, so halos are compared `rim` inside."""
    grid = Grid((8, 6, 8))
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, grid.tokens, 8) for _ in range(3))
    with torch.no_grad():
        mine = grid.dense(_bare(**ours)(q, k, v, grid=grid)[0])
        other = grid.dense(_na3d(q, k, v, grid, **theirs))
    z, y, x = (slice(r, n - r) for r, n in zip(rim, grid.shape_zyx, strict=True))
    assert torch.allclose(mine[..., z, y, x], other[..., z, y, x], atol=1e-5)


def test_halo_of_a_block_is_attn_gyms_sliding_tile_mask_inside() -> None:
    sta = pytest.importorskip("attn_gym.masks.sta", reason="attn-gym is missing: extra peers")
    height, width, tile = 8, 12, 2
    mask = sta.generate_sta_mask_mod_2d((height, width), (3 * tile, 3 * tile), (tile, tile))
    grid = Grid((1, height, width))
    at = torch.arange(grid.tokens)
    y, x = at // width, at % width
    by_tile = (y // tile * (width // tile) + x // tile) * tile**2 + y % tile * tile + x % tile  # their order of tokens
    theirs = mask(torch.tensor(0), torch.tensor(0), by_tile[:, None], by_tile[None])
    q, k, v = (torch.randn(1, 2, grid.tokens, 8, dtype=torch.float64) for _ in range(3))
    weights = _bare(window=(1, tile, tile), halo=(0, tile, tile))(q, k, v, grid=grid, need_weights=True)[1]
    inside = (y >= tile) & (y < height - tile) & (x >= tile) & (x < width - tile)
    assert torch.equal((weights[0, 0] > 0)[inside], theirs[inside])
