"""DCAL: all queries are self-attention, a hidden or identical distractor changes nothing, rollout keeps its sum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petground.models import build
from petground.models.blocks.fusion.glca_pwca import PairLayer, glca, rollout


def _layer() -> PairLayer:
    torch.manual_seed(0)
    return PairLayer(8, 2).double()


def _block(**options: object) -> nn.Module:
    torch.manual_seed(0)
    block = build("fusion", "glca_pwca", channels=8, text_channels=6, num_heads=2, cells=3, **options)
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block


def _inputs(batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 8, 4, 5, 6), torch.randn(batch, 5, 6), torch.ones(batch, 5, dtype=torch.bool)


def test_the_whole_share_is_self_attention() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 9, 4).double() for _ in range(3))
    plain = (q @ k.transpose(-1, -2) / 2.0).softmax(-1) @ v
    out, places = glca(q, k, v, torch.rand(2, 9), 1.0)
    back = torch.zeros_like(out).scatter(2, places[:, None, :, None].expand_as(out), out)
    assert torch.allclose(back, plain, atol=1e-12)
    some, places = glca(q, k, v, torch.rand(2, 9), 0.3)
    assert some.shape == (2, 2, 3, 4)
    for row in range(2):
        assert torch.allclose(some[row], plain[row][:, places[row]], atol=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_only_the_cells_that_rollout_ranks_highest_look_again(share: float) -> None:
    block = _block(share=share).eval()
    states, real = torch.randn(2, 25, 8), torch.ones(2, 25, dtype=torch.bool)
    scores = torch.rand(2, 20)
    changed = (block._look_again(states, real, scores) - states[:, 5:]).abs().amax(dim=-1) > 1e-6
    keep = {0.1: 2, 0.3: 6, 1.0: 20}[share]
    assert changed.sum(dim=1).tolist() == [keep, keep]
    for row in range(2):
        assert set(changed[row].nonzero()[:, 0].tolist()) == set(scores[row].topk(keep).indices.tolist())


def test_a_pair_with_itself_is_self_attention() -> None:
    layer = _layer()
    h = torch.randn(1, 7, 8).double().repeat(2, 1, 1)
    real = torch.ones(2, 7, dtype=torch.bool)
    plain, weights = layer(h, real)
    paired, own = layer(h, real, torch.ones(2, dtype=torch.bool))
    assert torch.allclose(paired, plain, atol=1e-12)
    assert torch.allclose(own, weights, atol=1e-12)


def test_a_hidden_distractor_is_self_attention_and_another_is_not() -> None:
    layer = _layer()
    h, real = torch.randn(2, 7, 8).double(), torch.ones(2, 7, dtype=torch.bool)
    plain, _ = layer(h, real)
    paired, own = layer(h, real, torch.tensor([False, True]))
    assert torch.allclose(paired[0], plain[0], atol=1e-12)
    assert not torch.allclose(paired[1], plain[1], atol=1e-3)
    assert torch.allclose(own.sum(dim=-1), torch.ones(2, 7).double(), atol=1e-12)


def test_evaluation_knows_no_pairs_bit_for_bit() -> None:
    x, tokens, mask = _inputs()
    paired, plain = _block(pair=1.0), _block(pair=0.0)
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(paired.eval()(x, tokens, mask), plain(x, tokens, mask), strict=True)
        )
        assert not torch.allclose(paired.train()(x, tokens, mask)[1], plain(x, tokens, mask)[1], atol=1e-4)


def test_the_distractor_is_of_another_exam_where_there_are_two() -> None:
    """Two exams with two sentences each: what distracts a sentence is the half batch on, not its exam's other."""
    block = _block(pair=1.0).train()
    x, tokens, mask = _inputs()
    with torch.no_grad():
        before = block(x, tokens, mask)[1]
        for other, touched in ((1, False), (2, True), (3, False)):
            changed = x.clone()
            changed[other] += torch.randn_like(changed[other])
            moved = not torch.allclose(block(changed, tokens, mask)[1][0], before[0], atol=1e-6)
            assert moved == touched


def test_rollout_rows_sum_to_one() -> None:
    maps = [torch.randn(2, 9, 9).softmax(-1) for _ in range(3)]
    start = torch.rand(2, 9)
    start = start / start.sum(dim=1, keepdim=True)
    rolled = rollout(maps, start)
    assert torch.allclose(rolled.sum(dim=1), torch.ones(2), atol=1e-6)
    halves = [0.5 * (one + torch.eye(9)) for one in maps]
    written = torch.einsum("bi,bij->bj", start, halves[2] @ halves[1] @ halves[0])
    assert torch.allclose(rolled, written, atol=1e-6)


def test_rollout_starts_from_the_real_words_or_from_the_cells() -> None:
    block = _block()
    mask = torch.tensor([[True, True, False], [False, False, False]])
    real = torch.cat([mask, torch.ones(2, 4, dtype=torch.bool)], dim=1)
    assert block._start(mask, real).tolist() == [[0.5, 0.5, 0, 0, 0, 0, 0], [0, 0, 0, 0.25, 0.25, 0.25, 0.25]]
