"""Reductions to latents: lookup, similarity_resampler, sparseformer_roi; and wrong options of this family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from petground.models.blocks.contract import BlockInputError, Grid
from petground.models.blocks.token_reduction.condensed import CONDENSED
from petground.models.blocks.token_reduction.resampler import distinctness
from petground.models.blocks.token_reduction.roi import adjust_roi, roi_grid, sample_points, sampling_places
from petground.models.registry import BlockError, build
from tests.models.conformance.memory import largest_tensor

GRID = Grid((3, 5, 7), (4.0, 2.0, 2.0))


def _tokens(count: int = 105, batch: int = 2, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(batch, count, 8, dtype=torch.float64)


def _made(key: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    module = build("token_reduction", key, channels=8, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


# LookupViT


def test_lookup_starts_as_the_resized_map() -> None:
    tokens = torch.arange(16.0).reshape(1, 16, 1).repeat(1, 1, 8)
    reduced = build("token_reduction", "lookup", channels=8, coarse_zyx=[1, 2, 2])(tokens, grid=Grid((1, 4, 4)))
    assert reduced.tokens[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]  # row-major cells of 2 x 2


def test_lookup_hands_back_through_the_same_scores() -> None:
    module, tokens = _made("lookup", coarse_zyx=[2, 2, 2]), _tokens()
    with torch.no_grad():
        reduced = module(tokens, grid=GRID)
        back = reduced.unmerge(torch.eye(8, dtype=torch.float64).expand(2, -1, -1))  # A^T, [B, N, M]
        sums = back.sum(1)
        assert torch.allclose(sums, torch.ones_like(sums))  # A's rows, over the voxels
        start = tokens.new_zeros(2, 8, 8)
        for number, (z, y, x) in enumerate((z, y, x) for z in range(2) for y in range(2) for x in range(2)):
            cell = tokens.unflatten(1, GRID.shape_zyx)[:, z : z + 2, (0, 2)[y] : (3, 5)[y], (0, 3)[x] : (4, 7)[x]]
            start[:, number] = cell.flatten(1, 3).mean(1)
        expected = start + module.out(back.transpose(1, 2) @ module.value(tokens))
        assert torch.allclose(reduced.tokens, expected)


def test_lookup_voxels_meet_only_in_the_compressed() -> None:
    """The un-merge has rank M: without compressed values nothing reaches a voxel, and M values reach all."""
    module, tokens = _made("lookup", coarse_zyx=[1, 2, 2]), _tokens()
    with torch.no_grad():
        reduced = module(tokens, grid=GRID)
        assert not reduced.unmerge(torch.zeros(2, 4, 5, dtype=torch.float64)).any()
        many = reduced.unmerge(torch.randn(2, 4, 60, dtype=torch.float64))
        assert torch.linalg.matrix_rank(many).tolist() == [4, 4]


def test_lookup_with_other_sizes_and_the_same_weights() -> None:
    small, large = _made("lookup", coarse_zyx=[2, 2, 2]), _made("lookup", coarse_zyx=[3, 4, 5])
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert small(_tokens(), grid=GRID).tokens.shape == (2, 8, 8)
        assert large(_tokens(), grid=GRID).tokens.shape == (2, 60, 8)
        back = _made("lookup", back="softmax", heads=2)(_tokens(), grid=GRID)
        constant = torch.full((2, back.tokens.shape[1], 3), 2.5, dtype=torch.float64)
        assert torch.allclose(back.unmerge(constant), torch.full((2, 105, 3), 2.5, dtype=torch.float64))


@pytest.mark.parametrize("key", ["lookup", "sparseformer_roi", "similarity_resampler"])
@pytest.mark.parametrize("heads", [1, 4])
def test_memory_grows_with_the_voxels_alone(key: str, heads: int) -> None:
    """The un-merge, too, whose values are wider than the heads that it compares."""
    module = build("token_reduction", key, channels=8, heads=heads)
    numbers = []
    for side in (8, 16):
        with largest_tensor() as made, torch.no_grad():
            reduced = module(torch.randn(1, side**3, 8), grid=Grid((side, side, side)))
            reduced.unmerge(reduced.tokens)
        numbers.append(made.numbers)
    assert numbers[1] <= 1024 * 16**3  # 4096 x 4096 would be four times as much
    if key != "similarity_resampler":
        assert numbers[1] <= 8.5 * numbers[0]


# TextMonkey's resampler


def test_resampler_keeps_all_at_a_rate_of_one() -> None:
    tokens = _tokens()
    reduced = build("token_reduction", "similarity_resampler", channels=8, keep=1.0).double()(tokens)
    assert torch.equal(reduced.kept, torch.arange(105).expand(2, -1))
    assert torch.equal(reduced.tokens, tokens)  # the resampler's output starts at zero


def test_alike_voxels_leave_first() -> None:
    tokens = _tokens(30, batch=1)
    tokens[0, 21] = tokens[0, 4]
    importance = distinctness(tokens, torch.ones(1, 30, dtype=torch.bool))
    cosine = normalize(tokens, dim=-1) @ normalize(tokens, dim=-1).transpose(1, 2)
    cosine[0].fill_diagonal_(-9.0)
    assert torch.allclose(importance, 1.0 - cosine.amax(2))
    assert importance[0, [4, 21]].abs().max() < 1e-12
    kept = _made("similarity_resampler", keep=28 / 30)(tokens).kept[0]
    assert set(range(30)) - set(kept.tolist()) == {4, 21}
    later = _made("similarity_resampler", keep=29 / 30, against="later")(tokens).kept[0]
    assert set(range(30)) - set(later.tolist()) == {4}  # the released code lets the last of a pair stay


def test_resampler_is_permutation_equivariant_and_reads_all() -> None:
    tokens = _tokens(40, batch=1).requires_grad_()
    module = _made("similarity_resampler", keep=0.3, heads=2)
    order = torch.randperm(40)
    reduced, turned = module(tokens), module(tokens[:, order])
    assert sorted(order[turned.kept[0]].tolist()) == reduced.kept[0].tolist()
    back, again = reduced.unmerge(reduced.tokens), turned.unmerge(turned.tokens)
    assert torch.allclose(back[:, order], again)
    (reach,) = torch.autograd.grad(reduced.tokens[0, 0].sum(), tokens)
    assert (reach[0].abs().sum(1) > 0).all()  # a kept voxel has read every voxel


def test_resampler_rows_sum_to_one() -> None:
    """With value and output projections that hand a constant through, each kept voxel gets exactly that constant."""
    module, tokens = _made("similarity_resampler", keep=0.3, heads=2), _tokens()
    with torch.no_grad():
        module.read.key_value.weight[8:] = 0.0
        module.read.key_value.bias[8:] = 1.5
        module.read.out.weight.copy_(torch.eye(8))
        module.read.out.bias.zero_()
        reduced = module(tokens)
        chosen = tokens.gather(1, reduced.kept[..., None].expand(-1, -1, 8))
        assert torch.allclose(reduced.tokens, chosen + 1.5)
        ones = torch.ones(2, reduced.tokens.shape[1], 1, dtype=torch.float64)
        assert torch.allclose(reduced.unmerge(ones), torch.ones(2, 105, 1, dtype=torch.float64))


def test_window_links_add_nothing_at_first_and_stay_within_windows() -> None:
    tokens = _tokens()
    module = build("token_reduction", "similarity_resampler", channels=8, links=True, window_zyx=[2, 2, 4]).double()
    real = torch.ones(2, 105, dtype=torch.bool)
    assert not module.link(tokens, real, GRID).any()
    module = _made("similarity_resampler", links=True, window_zyx=[2, 2, 4])
    leaf = tokens.clone().requires_grad_()
    added = module.link(leaf, real, GRID).unflatten(1, GRID.shape_zyx)
    (reach,) = torch.autograd.grad(added[0, 1, 2, 3].sum(), leaf)
    seen = reach[0].abs().sum(1).unflatten(0, GRID.shape_zyx) > 0
    # shifted by half a window: z 1..2, y 1..2, x 2..5
    expected = torch.zeros(GRID.shape_zyx, dtype=torch.bool)
    expected[1:3, 1:3, 2:6] = True
    assert torch.equal(seen, expected)
    with pytest.raises(BlockInputError, match=r"^similarity_resampler: grid"):
        module(tokens)


# SparseFormer


def test_no_adjustment_leaves_boxes_alone() -> None:
    roi = torch.rand(2, 5, 6, dtype=torch.float64)
    assert torch.equal(adjust_roi(roi, torch.zeros_like(roi)), roi)
    moved = adjust_roi(roi, torch.tensor([1.0, 0, 0, 0, 0.5, 0]).double().expand_as(roi))
    assert torch.allclose(moved[..., 0], roi[..., 0] + roi[..., 3])  # one box length along z
    assert torch.allclose(moved[..., 4], roi[..., 4] * torch.tensor(0.5).double().exp())
    module = build("token_reduction", "sparseformer_roi", channels=8, latents=6).double()
    _, after = module.focus(
        _tokens(), torch.ones(2, 105, dtype=torch.bool), GRID, _tokens(6), module.roi.expand(2, -1, -1)
    )
    assert torch.equal(after, module.roi.expand(2, -1, -1))  # the last layer starts at zero


def test_sampling_at_a_centre_is_indexing() -> None:
    dense = GRID.dense(_tokens())
    z, y, x = 2, 1, 5
    centre = torch.tensor([(z + 0.5) / 3, (y + 0.5) / 5, (x + 0.5) / 7], dtype=torch.float64)
    found = sample_points(dense, centre.expand(2, 1, 1, 3))
    assert torch.allclose(found[:, 0, 0], dense[:, :, z, y, x])
    between = torch.tensor([(z + 0.5) / 3, (y + 1.0) / 5, (x + 0.5) / 7], dtype=torch.float64)
    half = sample_points(dense, between.expand(2, 1, 1, 3))
    assert torch.allclose(half[:, 0, 0], (dense[:, :, z, y, x] + dense[:, :, z, y + 1, x]) / 2)


def test_offsets_have_no_scale() -> None:
    roi = roi_grid(4, torch.float64, torch.device("cpu")).expand(2, -1, -1)
    offsets = torch.randn(2, 4, 16, 3, dtype=torch.float64)
    places = sampling_places(roi, offsets)
    assert torch.allclose(sampling_places(roi, 50.0 * offsets + 7.0), places)
    apart = (places - roi[:, :, None, :3]) / roi[:, :, None, 3:]
    assert torch.allclose(apart.std(2), torch.full((2, 4, 3), 1 / 3).double())


def test_tokens_do_not_grow_with_the_volume() -> None:
    module = _made("sparseformer_roi", latents=6, points=4, repeats=2)
    with torch.no_grad():
        for shape in ((3, 5, 7), (8, 9, 10)):
            grid = Grid(shape)
            assert module(_tokens(grid.tokens), grid=grid).tokens.shape == (2, 6, 8)


def test_boxes_move_with_the_volume() -> None:
    """A volume moved by two voxels along x, boxes moved alike: the same samples, so the same tokens and moves."""
    torch.manual_seed(0)
    module = _made("sparseformer_roi", latents=4, points=4, repeats=3)
    with torch.no_grad():
        for parameter in module.move.parameters():
            parameter.mul_(0.02)  # boxes stay inside
        grid = Grid((8, 8, 20))
        volume = torch.zeros(1, 8, 8, 20, 8, dtype=torch.float64)
        volume[:, 2:6, 2:6, 5:13] = torch.randn(1, 4, 4, 8, 8, dtype=torch.float64)
        moved = volume.roll(2, dims=3)
        roi = torch.tensor([[0.5, 0.5, 0.45, 0.3, 0.3, 0.2]]).double().repeat(4, 1)[None]
        shifted = roi.clone()
        shifted[..., 2] += 2 / 20
        real = torch.ones(1, grid.tokens, dtype=torch.bool)
        state = module.token[None]
        one, roi_one = module.focus(volume.flatten(1, 3), real, grid, state, roi)
        two, roi_two = module.focus(moved.flatten(1, 3), real, grid, state, shifted)
    assert not torch.allclose(roi_one, roi)
    assert torch.allclose(one, two, atol=1e-9)
    assert torch.allclose(roi_two - roi_one, shifted - roi, atol=1e-9)


def test_voxels_read_the_boxes_that_cover_them() -> None:
    module = build("token_reduction", "sparseformer_roi", channels=8, latents=2, points=4, repeats=1).double()
    with torch.no_grad():
        module.key.weight.zero_()
        module.key.bias.zero_()
        module.roi.copy_(torch.tensor([[0.5, 0.5, 0.1, 0.5, 0.5, 0.1], [0.5, 0.5, 0.9, 0.5, 0.5, 0.1]]))
        grid = Grid((2, 2, 10))
        back = module(_tokens(40), grid=grid).unmerge(torch.eye(2, dtype=torch.float64).expand(2, -1, -1))
    left, right = back[0].unflatten(0, (2, 2, 10))[0, 0, [0, 9]]
    assert left[0] > 0.99
    assert right[1] > 0.99
    assert torch.allclose(back.sum(2), torch.ones(2, 40, dtype=torch.float64))


def test_wrong_options_are_refused() -> None:
    for key, options, hint in (
        ("lookup", {"coarse_zyx": [2, 2]}, "coarse_zyx"),
        ("lookup", {"heads": 3}, "divide"),
        ("similarity_resampler", {"keep": 0.0}, "keep"),
        ("perturbed_topk_tubes", {"stride_zyx": [3, 3, 3]}, "gaps"),
        ("perturbed_topk_tubes", {"sigma": 0.0}, "sigma"),
        ("sparseformer_roi", {"latents": 0}, "latents"),
        ("aim_merge_prune", {"ratio": 0.6}, "ratio"),
        ("aim_merge_prune", {"layer": 4, "layers": 4}, "layer"),
        ("recoverable_compression", {"clusters": 0}, "clusters"),
        ("mue_exit", {"least": 3, "layers": 2}, "least"),
    ):
        with pytest.raises(BlockError, match=hint):
            build("token_reduction", key, channels=8, **options)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("key", [block.key for block in CONDENSED])
def test_low_precision(key: str, training: bool) -> None:
    """Whole modules in bfloat16, and float32 ones under autocast, with gradients."""
    module = build("token_reduction", key, channels=8).train(training)
    tokens, text = _tokens().float().requires_grad_(), torch.randn(2, 4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = module(tokens, grid=GRID, text=text)
        back = reduced.unmerge(reduced.tokens)
        assert torch.isfinite(reduced.unmerge(reduced.tokens.bfloat16())).all()
    if back.requires_grad:  # not where all have left
        back.float().square().sum().backward()
    assert torch.isfinite(back).all()
    small = module.bfloat16()
    reduced = small(tokens.detach().bfloat16(), grid=GRID, text=text.bfloat16())
    assert reduced.tokens.dtype == torch.bfloat16
    assert reduced.unmerge(reduced.tokens).dtype == torch.bfloat16
    assert torch.isfinite(reduced.unmerge(reduced.tokens)).all()
