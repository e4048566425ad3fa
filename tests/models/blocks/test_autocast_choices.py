"""Autocast changes neither which voxels are chosen by their likeness nor what is worked out of places and offsets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.attention.windows import cut
from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction import BLOCKS, exits
from petground.models.blocks.token_reduction.bipartite import match, page_rank, softmax_rows
from petground.models.blocks.token_reduction.kcenter import farthest_first
from petground.models.blocks.token_reduction.maps import class_attention, received_attention
from petground.models.blocks.token_reduction.resampler import distinctness

N, C = 512, 16
REAL = torch.ones(1, N, dtype=torch.bool)


def _alike(dtype: torch.dtype = torch.float32) -> Tensor:
    """Voxels of one tissue: cosines of 0.98 to 1, of which bfloat16 tells a few apart."""
    made = torch.Generator().manual_seed(0)
    return (torch.randn(1, 1, C, generator=made) + 0.1 * torch.randn(1, N, C, generator=made)).to(dtype)


def _matched(tokens: Tensor) -> Tensor:
    return match(tokens, REAL, (torch.arange(N) % 2 == 1)[None], torch.tensor([N // 8]))


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "distinctness": lambda tokens: distinctness(tokens, REAL),
    "match": _matched,
    "page_rank": lambda tokens: page_rank(softmax_rows(tokens, REAL, 2, 0.05), REAL, 2, 5),
    "class_attention": lambda tokens: class_attention(tokens[:, 0], tokens, REAL, 2),
    "received_attention": lambda tokens: received_attention(tokens, REAL, 2),
    "saturation": lambda tokens: exits._alike(tokens, tokens.roll(1, 1), REAL),
    "farthest_first": lambda tokens: farthest_first(tokens, REAL, 40, tokens.norm(dim=-1))[0],
}
MODULES: dict[str, dict[str, Any]] = {
    "similarity_resampler": {"keep": 0.1},
    "aim_merge_prune": {"merges": 1, "ratio": 0.25, "layer": 6, "layers": 10, "first": 2},
    "kcenter_diversity": {"keep": 0.1},
    "evit_fuse": {},
    "cls_topk": {},
    "cls_topk_ensemble": {},
    "fopru": {},
    "hiprune": {},
    "flowcut": {},
    "vflowopt": {},
    "gsearch_psigmoid": {},
    "token_transition": {},
    "recoverable_compression": {},
    "p_mod": {},
    "gamma_mod": {},
    "perturbed_topk_tubes": {"tubes": 20, "kernel_zyx": [2, 2, 2], "stride_zyx": [1, 1, 1]},
}
NO_RANKING = {
    "none",  # all stay
    "lookup",  # all are read by all compressed tokens
    "sparseformer_roi",  # the same, by boxes
    "ia_red2",  # each voxel by itself against a threshold, whatever the others have
    "dyn_perceiver",  # all voxels of an exam leave together, by what a learnt head says of the code
    "dyvte_exit",  # the same
    "mue_exit",  # the same, by a mean likeness: "saturation" above
}


@pytest.mark.parametrize("name", CHOICES)
def test_likeness_is_not_rounded(name: str) -> None:
    truth = CHOICES[name](_alike())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(CHOICES[name](_alike()), truth)


@pytest.mark.parametrize("name", CHOICES)
def test_tokens_of_16_bits_are_chosen_as_the_same_ones_in_32(name: str) -> None:
    narrow = _alike(torch.bfloat16)
    start = narrow.float().norm(dim=-1)
    if name == "farthest_first":  # ties of the start, which is given, are no likeness
        found, truth = (farthest_first(tokens, REAL, 40, start)[0] for tokens in (narrow, narrow.float()))
    else:
        found, truth = CHOICES[name](narrow), CHOICES[name](narrow.float())
    assert torch.equal(found, truth)
    assert CHOICES[name](_alike(torch.float64)).dtype in (torch.float64, torch.long)


def _case(key: str, tokens: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    module = build("token_reduction", key, channels=C, **MODULES[key]).eval()
    if key == "p_mod":
        nn.init.normal_(module.router.weight, std=0.1)  # at its start it gives all voxels one score
    text = torch.randn(1, 5, C, generator=torch.Generator().manual_seed(3)).to(tokens)
    return module, {"tokens": 4 * tokens if key == "flowcut" else tokens, "grid": Grid((8, 8, 8)), "text": text}


def test_every_reduction_that_ranks_is_here() -> None:
    assert {block.key for block in BLOCKS} == MODULES.keys() | NO_RANKING


@pytest.mark.parametrize("key", MODULES)
def test_the_same_voxels_stay(key: str) -> None:
    module, given = _case(key, _alike())
    with torch.no_grad():
        truth = module(**given)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(**given)
    assert truth.mask.any()
    assert (truth.kept >= 0).sum() < N
    assert torch.equal(found.mask, truth.mask)
    assert torch.equal(found.kept, truth.kept)


@pytest.mark.parametrize("key", [key for key in MODULES if key != "perturbed_topk_tubes"])  # by an MLP, of 16 bits
def test_of_tokens_of_16_bits_the_same_stay_as_in_32(key: str) -> None:
    module, given = _case(key, _alike(torch.bfloat16))
    wide = {name: one.float() if isinstance(one, Tensor) else one for name, one in given.items()}
    with torch.no_grad():
        found = module.bfloat16()(**given).kept
        truth = module.float()(**wide).kept
    assert torch.equal(found, truth)


def test_scores_of_32_bits_are_not_narrowed_to_the_tokens_16() -> None:
    """SUVs that bfloat16 does not tell apart."""
    scores = 4.0 + 1e-4 * torch.arange(N)[None]
    reduced = build("token_reduction", "cls_topk", channels=C)(_alike(torch.bfloat16), scores=scores)
    assert torch.equal(reduced.kept, torch.arange(N - N // 4, N)[None])


def test_sparseformer_unmerges_by_places_of_32_bits() -> None:
    """Boxes of a tenth of the volume: the squares of places, of which a score is the difference, reach tens."""
    torch.manual_seed(0)
    module = build("token_reduction", "sparseformer_roi", channels=C).eval()
    with torch.no_grad():
        module.roi[:, 3:] = 0.1
        reduced = module(torch.randn(1, 12**3, C), grid=Grid((12, 12, 12)))
        values = torch.randn(reduced.tokens.shape)
        truth = reduced.unmerge(values)
        with torch.autocast("cpu", torch.bfloat16):
            found = reduced.unmerge(values)
    assert torch.equal(found, truth)


def test_swin_v2s_bias_is_not_rounded() -> None:
    """About 8 at the start: steps of bfloat16 there are 1/32 and more."""
    torch.manual_seed(0)
    grid, heads = Grid((4, 4, 4), (4.0, 4.0, 4.0)), 2
    module = build("attention", "swin_v2_cosine_3d", channels=32, num_heads=heads).eval()
    position = module.positions[0]
    truth = position.of_offsets(cut(grid.shape_zyx, (4, 4, 4)), grid.spacing_zyx_mm)
    with torch.autocast("cpu", torch.bfloat16):
        found = position.of_offsets(cut(grid.shape_zyx, (4, 4, 4)), grid.spacing_zyx_mm)
    assert torch.equal(found, truth)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_swin_v2_adds_its_bias_in_32_bits(autocast: bool, need_weights: bool) -> None:
    torch.manual_seed(0)
    grid = Grid((8, 8, 8), (4.0, 4.0, 4.0))
    module = build("attention", "swin_v2_cosine_3d", channels=32, num_heads=2).eval()
    q, k, v = (torch.randn(1, 2, grid.tokens, 16).bfloat16() for _ in range(3))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out, _ = module(q, k, v, grid=grid, need_weights=need_weights)
        truth, _ = module.double()(q.double(), k.double(), v.double(), grid=grid)
    assert out.dtype == torch.bfloat16
    error = ((out.double() - truth).norm() / truth.norm()).item()
    assert error < 0.013, error
