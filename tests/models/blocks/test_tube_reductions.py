"""StimuVAR's tubes (perturbed_topk_tubes): sub-volumes chosen with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Grid
from petground.models.blocks.token_reduction.perturbed import hard_topk, perturbed_topk
from petground.models.blocks.token_reduction.tubes import peak_slices, tube_places, tube_scores
from petground.models.registry import build

GRID = Grid((3, 5, 7), (4.0, 2.0, 2.0))


def _tokens(count: int = 105, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, count, 8, dtype=torch.float64)


def _made(key: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    module = build("token_reduction", key, channels=8, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


def test_perturbed_rows_sum_to_one_and_sharpen() -> None:
    torch.manual_seed(0)
    scores = torch.rand(2, 9, dtype=torch.float64)
    rows = perturbed_topk(scores, 3, 200, 0.2)
    assert torch.allclose(rows.sum(2), torch.ones(2, 3, dtype=torch.float64))
    assert ((rows > 0) & (rows < 1)).any()
    assert torch.allclose(perturbed_topk(scores, 3, 50, 1e-9), hard_topk(scores, 3))
    chosen = hard_topk(scores, 3).argmax(2)
    assert torch.equal(chosen, scores.topk(3).indices.sort().values)


def test_perturbed_gradient_is_that_of_the_expectation() -> None:
    """Against the analytic one: two scores, one chosen, P(first) = Phi((a - b) / (sigma sqrt 2))."""
    torch.manual_seed(0)
    scores = torch.tensor([[0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    sigma = 0.2
    rows = perturbed_topk(scores, 1, 400_000, sigma)
    (grad,) = torch.autograd.grad(rows[0, 0, 0], scores)
    gap = 0.1 / (sigma * 2**0.5)
    density = torch.exp(torch.tensor(-(gap**2) / 2)) / (2 * torch.pi) ** 0.5 / (sigma * 2**0.5)
    assert torch.allclose(rows[0, 0, 0], torch.special.ndtr(torch.tensor(gap).double()), atol=5e-3)
    assert torch.allclose(grad[0], torch.tensor([density, -density]).double(), atol=0.03)


def test_scores_learn_through_the_choice() -> None:
    module = _made("perturbed_topk_tubes", tubes=2, samples=50).train()
    reduced = module(_tokens(), grid=GRID)
    reduced.unmerge(reduced.tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.outward[0].parameters())


def test_tubes_cover_every_voxel() -> None:
    for shape in ((3, 5, 7), (1, 1, 1), (2, 4, 4), (5, 9, 4)):
        places = tube_places(Grid(shape), (2, 4, 4), (1, 3, 3), torch.device("cpu"))
        assert places.unique().tolist() == list(range(Grid(shape).tokens))
    places = tube_places(Grid((3, 7, 7)), (2, 4, 4), (1, 3, 3), torch.device("cpu"))
    assert len(places) == 2 * 2 * 2
    assert places[1].tolist() == [z * 49 + y * 7 + x for z in (0, 1) for y in range(4) for x in range(3, 7)]


def test_evaluation_keeps_the_tubes_of_highest_pooled_score() -> None:
    module, tokens = _made("perturbed_topk_tubes", tubes=2), _tokens()
    with torch.no_grad():
        reduced = module(tokens, grid=GRID)
        places = tube_places(GRID, (2, 4, 4), (1, 3, 3), tokens.device)
        pooled = module.predict(tokens, torch.ones(2, 105, dtype=torch.bool))[:, places].mean(2)
        everything = _made("perturbed_topk_tubes", tubes=99)(tokens, grid=GRID)
    for row in range(2):
        best = places[pooled[row].topk(2).indices].flatten().unique().tolist()
        assert reduced.kept[row][reduced.mask[row]].tolist() == best
    assert torch.equal(everything.kept, torch.arange(105).expand(2, -1))
    assert torch.equal(everything.tokens, tokens)


def test_soft_tubes_add_up_to_the_grid_again() -> None:
    """All tubes chosen, next to no noise: overlapping tubes, averaged, give back every voxel."""
    tokens = _tokens()
    module = _made("perturbed_topk_tubes", tubes=99, sigma=1e-9, samples=3).train()
    with torch.no_grad():
        reduced = module(tokens, grid=GRID)
        assert (reduced.kept == -1).all()
        assert torch.allclose(reduced.unmerge(reduced.tokens), tokens)


def test_tube_scores_are_scaled_and_ignore_padding() -> None:
    places = torch.tensor([[0, 1], [2, 3], [4, 5]])
    scores = torch.tensor([[1.0, 3.0, 5.0, 99.0, 0.0, 8.0]])
    real = torch.tensor([[True, True, True, False, True, True]])
    found = tube_scores(scores, real, places, torch.ones(1, 3, dtype=torch.bool))
    assert torch.allclose(found, torch.tensor([[0.0, 1.0, 2 / 3]]))


def test_slices_around_the_peaks_of_the_axial_profile() -> None:
    profile = torch.tensor([[0.0, 1, 5, 1, 0, 0, 0, 2, 9, 2, 0, 3, 0]])
    assert peak_slices(profile, 1, 1)[0].nonzero()[:, 0].tolist() == [7, 8, 9]
    assert peak_slices(profile, 2, 0)[0].nonzero()[:, 0].tolist() == [2, 8]
    flat = peak_slices(torch.ones(1, 4), 3, 0)
    assert flat.sum() == 1
    grid = Grid((6, 4, 4))
    scores = torch.zeros(1, 96)
    scores[0, 4 * 16 + 5] = 9.0  # slice 4
    kept = _made("perturbed_topk_tubes", tubes=1, peaks=1, reach=0)(
        _tokens(96, batch=1), scores=scores.double(), grid=grid
    ).kept
    assert (kept // 16 == 4).any()
    assert set((kept // 16).flatten().tolist()) <= {3, 4, 5}
