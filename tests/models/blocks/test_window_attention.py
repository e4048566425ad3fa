"""What windows promise: where each voxel may look, what a bias depends on, and how much is held at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from petground.models.blocks.attention.softmax import SoftmaxAttention
from petground.models.blocks.attention.windows import cut, dense_map, join, regions, split, split_halo
from petground.models.blocks.attention.within import attend
from petground.models.blocks.contract import BlockError, Grid
from petground.models.blocks.voxel_attention import VoxelAttention
from petground.models.registry import build
from tests.models.conformance.memory import kept_for_backward, largest_tensor

CHANNELS, HEADS = 8, 2
SIZES = st.tuples(*[st.integers(1, 7)] * 3)


def made(key: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    module = build("attention", key, channels=CHANNELS, num_heads=HEADS, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def tokens(grid: Grid, seed: int = 1, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, HEADS, grid.tokens, CHANNELS // HEADS, dtype=torch.float64, generator=generator)


def qkv(grid: Grid) -> list[Tensor]:
    return [tokens(grid, seed) for seed in (1, 2, 3)]


def places(grid: Grid) -> Tensor:
    """[N, 3] voxel of each token."""
    axes = [torch.arange(n) for n in grid.shape_zyx]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)


def seen(module: nn.Module, grid: Grid) -> Tensor:
    """[N, N] bool: whose value reaches whom, from the map."""
    with torch.no_grad():
        _, weights = module(*qkv(grid), grid=grid, need_weights=True)
    assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
    return (weights > 0).any(1)[0]


@given(SIZES, SIZES, st.booleans(), st.tuples(*[st.integers(1, 3)] * 3))
@settings(max_examples=60, deadline=None)
def test_split_and_join_are_inverse_and_windows_partition_the_voxels(
    size: tuple[int, int, int], window: tuple[int, int, int], shifted: bool, interval: tuple[int, int, int]
) -> None:
    one = cut(size, window, shifted=shifted, interval=interval)
    names = torch.arange(1, Grid(size).tokens + 1).reshape(1, 1, -1, 1).repeat(2, 3, 1, 1)
    windows = split(names, one)
    assert windows.shape[0] == 2 * one.count
    assert torch.equal(join(windows, one), names)
    inside = windows[: one.count, 0, :, 0].flatten()
    assert sorted(inside[inside > 0].tolist()) == list(range(1, names.shape[2] + 1))


@given(SIZES, SIZES, SIZES)
@settings(max_examples=60, deadline=None)
def test_a_halo_holds_exactly_the_voxels_around_a_window(
    size: tuple[int, int, int], window: tuple[int, int, int], halo: tuple[int, int, int]
) -> None:
    grid, one = Grid(size), cut(size, window, halo=halo)
    at = places(grid)
    names = torch.arange(1, grid.tokens + 1).reshape(1, 1, -1, 1)
    inner, outer = split(names, one)[:, 0, :, 0], split_halo(names, one)[:, 0, :, 0]
    for mine, keys in zip(inner, outer, strict=True):
        first = at[mine[mine > 0] - 1].amin(0)  # padding is at the far end only
        low, high = first - torch.tensor(halo), first + torch.tensor(one.window) + torch.tensor(halo)
        expected = ((at >= low) & (at < high)).all(1).nonzero().flatten() + 1
        assert sorted(keys[keys > 0].tolist()) == expected.tolist()


def test_a_shifted_window_is_cut_where_the_ring_closes() -> None:
    one = cut((6, 1, 1), (4, 4, 4), shifted=True)
    assert (one.window, one.shift, one.padded) == ((4, 1, 1), (2, 0, 0), (8, 1, 1))
    names = torch.arange(1, 7).reshape(1, 1, 6, 1)
    assert split(names, one)[:, 0, :, 0].tolist() == [[3, 4, 5, 6], [0, 0, 1, 2]]
    assert regions(one, names.device)[1].tolist()[2:] == [4, 4]


def test_swin_plain_stays_in_its_window_and_a_pair_reaches_the_next() -> None:
    grid = Grid((5, 6, 8))
    at = places(grid)
    window = torch.tensor([2, 2, 4])
    plain = seen(made("swin_window_3d", window=[2, 2, 4], shift="plain"), grid)
    same = (at[:, None] // window == at[None] // window).all(-1)
    assert torch.equal(plain, same)
    # shifted: the same cut half a window later; the two sides of the grid never meet
    shifted = seen(made("swin_window_3d", window=[2, 2, 4], shift="shifted"), grid)
    later = at + window - window // 2
    assert torch.equal(shifted, (later[:, None] // window == later[None] // window).all(-1))
    module = made("swin_window_3d", window=[2, 2, 4], shift="pair")
    value = tokens(grid, 3).requires_grad_()
    out, _ = module(*qkv(grid)[:2], value, grid=grid)
    middle = int((at == torch.tensor([2, 2, 4])).all(-1).nonzero())
    (gradient,) = torch.autograd.grad(out[:, :, middle].sum(), value)
    reached = at[gradient.abs().sum((0, 1, 3)) > 0]
    assert reached.amin(0).tolist() == [0, 0, 0]
    assert reached.amax(0).tolist() == [3, 3, 7]


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("swin_window_3d", {"shift": "shifted"}),
        ("swin_v2_cosine_3d", {"shift": "plain", "hidden": 8}),
        ("lsda", {"distance": "long"}),
        ("halo", {}),
    ],
)
def test_one_window_over_the_grid_is_full_attention_with_the_bias(key: str, options: dict[str, Any]) -> None:
    grid = Grid((3, 4, 2), (4.0, 2.0, 3.0))
    module = made(key, window=[3, 5, 9], **options)
    q, k, v = qkv(grid)
    with torch.no_grad():
        out, weights = module(q, k, v, grid=grid, need_weights=True)
        one = module.cuts(grid)[0]
        if key == "swin_v2_cosine_3d":
            scale = module.log_scale[0].exp() * 2.0
            q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
            q = q * scale  # softmax attention divides by sqrt(4)
        if key == "halo":
            at = places(grid)
            offset = at[:, None] - at[None]
            bias = torch.zeros(1, HEADS, grid.tokens, grid.tokens, dtype=torch.float64)
            for axis, (table, reach) in enumerate(
                zip(module.positions[0].axes, module.positions[0].reach, strict=True)
            ):
                bias += torch.einsum("bhnd,nmd->bhnm", q, table[offset[..., axis] + reach])
        else:
            bias = module.positions[0](one, grid.spacing_zyx_mm)[None]
        full, whole = SoftmaxAttention(CHANNELS, HEADS)(q, k, v, bias=bias, need_weights=True)
        assert torch.allclose(weights, whole, atol=1e-10)
        if module.norm is None:
            assert torch.allclose(out, full, atol=1e-10)


def test_halo_sees_the_rim_and_nothing_further() -> None:
    grid, at = Grid((5, 4, 7)), places(Grid((5, 4, 7)))
    block, rim = torch.tensor([2, 2, 3]), torch.tensor([1, 0, 2])
    first = at // block * block
    expected = ((at[None] >= (first - rim)[:, None]) & (at[None] < (first + block + rim)[:, None])).all(-1)
    assert torch.equal(seen(made("halo", window=[2, 2, 3], halo=[1, 0, 2]), grid), expected)
    # no rim: blocks alone; a rim that covers the grid: everybody
    assert torch.equal(
        seen(made("halo", window=[2, 2, 3], halo=[0, 0, 0]), grid), (first[:, None] == first[None]).all(-1)
    )
    assert seen(made("halo", window=[2, 2, 3], halo=[9, 9, 9]), grid).all()


def test_halo_moves_with_the_image_by_whole_blocks() -> None:
    grid = Grid((8, 8, 8))
    module = made("halo", window=[2, 2, 2], halo=[1, 1, 1])
    dense = [grid.dense(one) for one in qkv(grid)]
    with torch.no_grad():
        out = grid.dense(module(*qkv(grid), grid=grid)[0])
        moved = module(*(grid.flat(one.roll((2, -2, 2), (-3, -2, -1))) for one in dense), grid=grid)[0]
    inner = (..., slice(4, 6), slice(2, 4), slice(4, 6))  # away from the border both times
    back = grid.dense(moved).roll((-2, 2, -2), (-3, -2, -1))
    assert torch.allclose(
        out[(..., slice(2, 4), slice(4, 6), slice(2, 4))], back[(..., slice(2, 4), slice(4, 6), slice(2, 4))]
    )
    assert not torch.allclose(out[inner], grid.dense(moved)[inner])


def test_lsda_short_and_long_groups() -> None:
    grid = Grid((4, 6, 8))
    at = places(grid)
    window, interval = torch.tensor([2, 3, 2]), torch.tensor([2, 2, 2])
    short = seen(made("lsda", window=[2, 3, 2], distance="short"), grid)
    assert torch.equal(short, (at[:, None] // window == at[None] // window).all(-1))
    long = seen(made("lsda", window=[2, 3, 2], interval=[2, 2, 2], distance="long"), grid)
    span = window * interval
    group = torch.cat([at // span, at % interval], dim=1)
    assert torch.equal(long, (group[:, None] == group[None]).all(-1))
    # one after the other: everybody within a span
    both = seen(made("lsda", window=[2, 3, 2], interval=[2, 2, 2]), grid)
    assert torch.equal(both, (at[:, None] // span == at[None] // span).all(-1))


def test_cosine_scores_ignore_lengths_and_are_bounded() -> None:
    grid = Grid((3, 4, 5), (3.0, 2.0, 2.0))
    module = made("swin_v2_cosine_3d", window=[2, 2, 2], hidden=8)
    q, k, v = qkv(grid)
    with torch.no_grad():
        out, _ = module(q, k, v, grid=grid)
        assert torch.allclose(module(7.0 * q, 0.01 * k, v, grid=grid)[0], out, atol=1e-10)
        module = made("swin_v2_cosine_3d", window=[4, 4, 5], shift="plain", hidden=8)
        module.log_scale.fill_(50.0)  # the temperature stops at 0.01
        _, sharp = module(q, k, v, grid=grid, need_weights=True)
        assert 50.0 < sharp.log().amax() - sharp.log().amin() <= 2 * 100.0 + 16.0


def test_zero_post_norm_is_the_identity() -> None:
    module = build("attention", "swin_v2_cosine_3d", channels=CHANNELS, num_heads=HEADS, window=[2, 2, 2], hidden=8)
    nn.init.zeros_(module.norm.weight)
    block = VoxelAttention(CHANNELS, 4, HEADS, module, None, needs_grid=True)
    nn.init.normal_(block.outward.weight)
    x = torch.randn(1, CHANNELS, 3, 4, 5)
    assert torch.equal(block(x), x)


def test_spacing_reaches_the_bias_in_mm_only() -> None:
    shape = (4, 4, 4)
    for key, changes in (("swin_window_3d", False), ("swin_v2_cosine_3d", True), ("halo", False), ("lsda", True)):
        module = made(key, window=[2, 2, 2])
        with torch.no_grad():
            near, far = (
                module(*qkv(Grid(shape)), grid=Grid(shape, mm))[0] for mm in ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0))
            )
        assert torch.allclose(near, far) != changes, key


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("swin_window_3d", {}),
        ("swin_v2_cosine_3d", {}),
        ("halo", {"window": [4, 4, 4], "halo": [1, 1, 1]}),
        ("lsda", {}),
        ("dual_window_channel", {}),
        ("aggregated_attention", {"pool": [2, 2, 2], "hidden": 16}),
        ("bilevel_routing", {"regions": [4, 4, 4], "topk": 2}),
    ],
)
def test_memory_grows_with_the_voxels_not_their_square(key: str, options: dict[str, Any]) -> None:
    """Forward and backward, with a mask, which keeps the fused kernels from hiding anything."""
    torch.manual_seed(0)
    module = build("attention", key, channels=CHANNELS, num_heads=HEADS, **options)
    largest, kept = [], []
    for depth in (6, 14):  # no multiple of the window: padding everywhere
        grid = Grid((depth, 14, 14))
        inputs = [torch.randn(1, HEADS, grid.tokens, CHANNELS // HEADS, requires_grad=True) for _ in range(3)]
        mask = torch.rand(1, grid.tokens) > 0.1
        with largest_tensor() as made_, kept_for_backward() as storages:
            module(*inputs, mask=mask, grid=grid)[0].sum().backward()
        largest.append(made_.numbers)
        kept.append(sum(storages.values()))
        assert made_.numbers < HEADS * grid.tokens**2 / 4, made_.shape
    # 7/3 times the voxels; 16/8 or 16/6 with the padding of the windows
    limit = 4.0 if key != "bilevel_routing" else 16 / 2
    assert largest[1] < limit * largest[0]
    assert kept[1] < limit * kept[0]


def test_masks_in_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid((5, 6, 7))
    module = made("swin_window_3d", window=[2, 2, 3])
    mask = torch.rand(1, grid.tokens) > 0.3
    with torch.no_grad():
        whole, _ = module(*qkv(grid), mask=mask, grid=grid)
        monkeypatch.setattr("petground.models.blocks.attention.within.BUDGET", 700)
        assert torch.equal(module(*qkv(grid), mask=mask, grid=grid)[0], whole)


def test_a_group_without_keys_gives_zero() -> None:
    q = torch.randn(2, 1, 3, 4)
    keys = torch.tensor([[True, False, True], [False, False, False]])
    out, _ = attend(q, q, q, keys=keys)
    assert (out[1] == 0).all()
    assert (out[0] != 0).all()


def test_half_precision_of_empty_features_is_finite() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        module = build("attention", "swin_v2_cosine_3d", channels=CHANNELS, num_heads=HEADS, hidden=8).to(dtype)
        x = torch.zeros(1, HEADS, 125, 4, dtype=dtype)
        x[:, :, ::2] = 3.0
        out, _ = module(x, x, x, grid=Grid((5, 5, 5)))
        assert torch.isfinite(out).all()
        assert out.dtype == dtype


def test_options_that_mean_nothing_are_refused() -> None:
    for key, options in (
        ("swin_window_3d", {"window": [4, 4]}),
        ("swin_window_3d", {"window": [4, 0, 4]}),
        ("swin_window_3d", {"window": 4}),
        ("swin_window_3d", {"shift": "sideways"}),
        ("swin_window_3d", {"halo": [1, 1, 1]}),
        ("swin_v2_cosine_3d", {"unit_mm": 0.0}),
        ("halo", {"halo": [-1, 0, 0]}),
        ("dual_window_channel", {"groups": 3}),
        ("bilevel_routing", {"topk": 0}),
        ("bilevel_routing", {"local": 2}),
        ("aggregated_attention", {"window": [2, 3, 3]}),
    ):
        with pytest.raises(BlockError, match=next(iter(options))):
            build("attention", key, channels=CHANNELS, num_heads=HEADS, **options)


def test_the_map_of_windows_is_put_where_it_belongs() -> None:
    one = cut((1, 1, 4), (1, 1, 2))
    weights = torch.tensor([[0.1, 0.9], [0.4, 0.6]]).expand(2, 1, 2, 2)
    expected = torch.block_diag(weights[0, 0], weights[1, 0])
    assert torch.equal(dense_map(weights, one)[0, 0], expected)
