"""Farthest-point selection (ToDRE) and a policy per sentence (IA-RED2): what they promise."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.contract import Grid
from petground.models.blocks.own_losses import Outcome, listening, own_losses
from petground.models.blocks.token_reduction.interpreter import (
    Interpreter,
    action_log_prob,
    keep_map,
    reinforce_loss,
    reward,
)
from petground.models.blocks.token_reduction.kcenter import farthest_first
from petground.models.blocks.voxel_attention import VoxelAttention

GRID = Grid((2, 3, 4))
N, C = GRID.tokens, 8


def inputs(seed: int = 0, count: int = N) -> Tensor:
    return torch.randn(2, count, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def order(tokens: Tensor, count: int, criterion: str = "radius") -> tuple[list[int], Tensor]:
    real = torch.ones(tokens.shape[:2], dtype=torch.bool)
    start = (tokens - tokens.mean(1, keepdim=True)).norm(dim=-1)
    places, radii = farthest_first(tokens, real, count, start, criterion)
    return places[0].tolist(), radii[0]


def chords(tokens: Tensor) -> Tensor:
    unit = tokens[0] / tokens[0].norm(dim=-1, keepdim=True)
    return torch.cdist(unit, unit)


@pytest.mark.parametrize("criterion", ["radius", "sum"])
def test_farthest_first_by_hand(criterion: str) -> None:
    tokens = inputs()
    distance = chords(tokens)
    chosen = [int((tokens[0] - tokens[0].mean(0)).norm(dim=-1).argmax())]
    while len(chosen) < 10:
        to_chosen = distance[:, chosen]
        gain = to_chosen.amin(1) if criterion == "radius" else to_chosen.sum(1)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
    assert order(tokens, 10, criterion)[0] == chosen


def test_prefixes_are_the_smaller_sets() -> None:
    tokens = inputs()
    full = order(tokens, N)[0]
    assert sorted(full) == list(range(N))
    for k in (1, 5, 11):
        assert order(tokens, k)[0] == full[:k]
        reduced = build("token_reduction", "kcenter_diversity", channels=C, keep=k / N)(tokens)
        assert reduced.kept[0].tolist() == sorted(full[:k])


def test_the_radius_falls_and_is_at_most_twice_the_best() -> None:
    tokens = inputs(3, 11)
    distance = chords(tokens)
    radii = order(tokens, 4)[1]
    assert (radii[1:] <= radii[:-1] + 1e-12).all()
    for k in range(1, 5):
        best = min(distance[:, list(some)].amin(1).max() for some in itertools.combinations(range(11), k))
        assert radii[k - 1] <= 2 * best + 1e-9


def test_duplicates_come_after_all_that_differ() -> None:
    distinct = inputs(1, 6)
    tokens = torch.cat([distinct, 2.0 * distinct, distinct], dim=1)  # the same directions, three times
    assert sorted(n % 6 for n in order(tokens, 6)[0]) == list(range(6))
    tokens[:, 3] = tokens[:, 9] = tokens[:, 15] = 0.0
    first = order(tokens, 6)[0]
    assert sorted(n % 6 for n in first) == list(range(6))


def test_a_rare_lesion_is_chosen_early() -> None:
    """One voxel unlike 200 alike: top-k by likeness to the mean would lose it."""
    tokens = torch.ones(1, 201, C, dtype=torch.float64) + 0.05 * torch.randn(1, 201, C, dtype=torch.float64)
    tokens[0, 117] = torch.tensor([1.0, -1.0] * 4)
    block = build("token_reduction", "kcenter_diversity", channels=C, keep=0.01)
    assert 117 in block(tokens).kept[0].tolist()


def test_order_of_tokens_does_not_matter() -> None:
    tokens = inputs()
    turn = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert [int(turn[n]) for n in order(tokens[:, turn], 9)[0]] == order(tokens, 9)[0]


def test_scores_say_where_to_start() -> None:
    tokens = inputs()
    block = build("token_reduction", "kcenter_diversity", channels=C, keep=1 / N)
    scores = torch.zeros(2, N, dtype=torch.float64)
    scores[:, 19] = 1.0
    assert block(tokens, scores=scores).kept.tolist() == [[19], [19]]


def policy(**options: Any) -> Interpreter:
    torch.manual_seed(0)
    block = build("token_reduction", "ia_red2", channels=C, **options).double()
    assert isinstance(block, Interpreter)
    nn.init.normal_(block.query.weight)
    return block


def test_it_starts_by_keeping_all_and_a_threshold_of_zero_always_does() -> None:
    tokens, text = inputs(), inputs(5, 3)
    fresh = build("token_reduction", "ia_red2", channels=C).double()
    assert torch.equal(fresh(tokens, text=text).tokens, tokens)
    assert torch.equal(policy(threshold=0.0)(tokens, text=100 * text).tokens, tokens)
    assert policy()(tokens, text=text).mask.sum() < 2 * N


def test_keep_probability_by_hand() -> None:
    tokens, text = inputs(), inputs(5, 3)
    block = policy(heads=2)
    q, k = block.query(tokens), block.asked(text.mean(1))
    heads = [(q[..., part] * k[:, None, part]).sum(-1).sigmoid() for part in (slice(0, 4), slice(4, 8))]
    keep = (heads[0] + heads[1]) / 2 >= 0.5
    assert torch.equal(keep_map(block(tokens, text=text), N), keep)
    assert not torch.equal(keep_map(block(tokens, text=-text), N), keep)  # a map per sentence


def test_kept_sets_are_nested_over_groups() -> None:
    tokens, text = inputs(), inputs(5, 3)
    mask = torch.ones(2, N, dtype=torch.bool)
    for group in range(3):
        block = policy()
        nn.init.normal_(block.query.weight, std=1 + group)
        after = keep_map(block(tokens, text=text, mask=mask), N)
        assert (after <= mask).all()
        mask = after
    assert 0 < int(mask.sum()) < 2 * N


def test_dropped_voxels_keep_their_last_value_in_the_network() -> None:
    text, block = inputs(5, 3), policy()
    stage = VoxelAttention(C, C, 2, build("attention", "softmax", channels=C, num_heads=2), block, needs_grid=False)
    stage = stage.double().eval()
    nn.init.normal_(stage.outward.weight)
    assert stage.text is not None
    x = inputs().transpose(1, 2).unflatten(-1, GRID.shape_zyx)
    with torch.no_grad():
        voxels = stage.norm(GRID.flat(x))
        keep = keep_map(block(voxels, text=stage.text(text)), N)
        same = (stage(x, text, torch.ones(2, 3, dtype=torch.bool)) == x).all(1).flatten(1)
    assert 0 < int(keep.sum()) < 2 * N
    assert torch.equal(same, ~keep)


def test_any_loss_reaches_the_policy() -> None:
    tokens, text = inputs(), inputs(5, 3)
    block = policy()
    reduced = block(tokens, text=text)
    reduced.tokens.square().sum().backward()
    assert block.query.weight.grad is not None
    assert block.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("heads", [1, 2])
def test_straight_through_is_the_gradient_of_the_soft_network(heads: int) -> None:
    """Where the kept voxels are weighted by 1 + I less what I is here, the weight is 1, and its change is I's."""
    tokens, text = inputs().requires_grad_(), inputs(5, 3).requires_grad_()
    block = policy(heads=heads)
    nn.init.normal_(block.query.bias)
    here = block.probability(tokens, text, None).detach()
    keep = here >= block.threshold
    assert 0 < int(keep.sum()) < 2 * N
    weight = inputs(7)

    def soft() -> Tensor:
        gate = keep * (1 + block.probability(tokens, text, None) - here)
        return (weight * tokens * gate[..., None]).sum()

    reduced = block(tokens, text=text)
    loss = (weight * reduced.unmerge(reduced.tokens)).sum()
    torch.testing.assert_close(loss, soft())
    leaves = {"tokens": tokens, "text": text, **dict(block.named_parameters())}
    del leaves["policy_token"]  # the sentence takes its place
    given = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for name, leaf in leaves.items():
        direction, step = torch.randn_like(leaf), 1e-6
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                leaf.add_(sign * step * direction)
                ends.append(soft())
                leaf.sub_(sign * step * direction)
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope.abs() > 1e-3, name
        torch.testing.assert_close((given[name] * direction).sum(), slope, rtol=1e-5, atol=1e-6, msg=name)


def test_reinforce_is_the_gradient_of_the_expected_reward() -> None:
    """On three tokens all eight maps can be enumerated: sum_a pi(a) R(a) grad log pi(a) = grad sum_a pi(a) R(a)."""
    logits = torch.tensor([[0.3, -0.8, 1.1]], dtype=torch.float64, requires_grad=True)
    real = torch.ones(1, 3, dtype=torch.bool)
    probability = logits.sigmoid()
    expected, estimate = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    mass = 0.0
    for bits in itertools.product([False, True], repeat=3):
        keep = torch.tensor([bits])
        gained = reward(keep, real, correct=keep[:, 1], tau=0.5).double()  # right when the middle one is seen
        assert gained.item() == pytest.approx(1 - (sum(bits) / 3) ** 2 if bits[1] else -0.5)
        log_prob = action_log_prob(probability, keep, real)
        chance = log_prob.exp()
        mass += chance.item()
        expected = expected + (chance * gained).sum()
        estimate = estimate + (chance.detach() * reinforce_loss(log_prob, gained, baseline=0.17)).sum()
    assert mass == pytest.approx(1.0)
    (truth,) = torch.autograd.grad(expected, logits, retain_graph=True)
    (found,) = torch.autograd.grad(-estimate, logits)
    assert torch.allclose(found, truth)


def test_drawn_maps_follow_the_policy_and_learn() -> None:
    """With the reward of finding the one voxel that matters the policy comes to keep it and little else."""
    tokens = torch.eye(C, dtype=torch.float64)[None].expand(32, -1, -1)
    block = policy(estimator="reinforce", policy="learned").train()
    nn.init.zeros_(block.query.weight)
    optimizer = torch.optim.Adam(block.parameters(), lr=0.2)
    for _ in range(60):
        with listening(block) as held:
            block(tokens)
        found = held["ia_red2"][1][0]["keep"][:, 3:4].double()
        optimizer.zero_grad()
        own_losses(held, Outcome(found, found))["ia_red2/policy"].mean().backward()
        optimizer.step()
    final = block.eval().probability(tokens[:1], None, None)[0]
    assert final[3] > 0.9
    assert final.sum() - final[3] < 2.0
