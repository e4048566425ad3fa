"""What every token reduction must do. Each block's own property stands in its own test file."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.models.blocks.contract import Block, BlockInputError, Grid, Reduced
from petground.models.registry import BLOCKS, build
from tests.models.conformance.examples import TOKEN_REDUCTION as EXAMPLES

CHANNELS = 8
GRIDS = {"odd": (3, 5, 7), "one voxel": (1, 1, 1), "thin": (1, 6, 4)}
ALL = [pytest.param(block, id=key) for key, block in BLOCKS["token_reduction"].items()]


def made(block: Block, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    module = build("token_reduction", block.key, channels=CHANNELS, **EXAMPLES.get(block.key, {}))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def asked(grid: tuple[int, int, int] = (3, 5, 7), batch: int = 2) -> tuple[Tensor, dict[str, Any]]:
    torch.manual_seed(1)
    shape = Grid(grid, (4.0, 2.0, 2.0))
    tokens = torch.randn(batch, shape.tokens, CHANNELS, dtype=torch.float64)
    text = torch.randn(batch, 5, CHANNELS, dtype=torch.float64)
    text_mask = torch.ones(batch, 5, dtype=torch.bool)
    text_mask[-1, 3:] = False
    scores = torch.rand(batch, shape.tokens, dtype=torch.float64)
    return tokens, {"grid": shape, "scores": scores, "text": text, "text_mask": text_mask}


def same(a: Reduced, b: Reduced, atol: float = 1e-9) -> None:
    assert torch.equal(a.mask, b.mask)
    assert torch.equal(a.kept, b.kept)
    assert torch.allclose(a.tokens[a.mask], b.tokens[b.mask], atol=atol)


@pytest.mark.parametrize("grid", list(GRIDS.values()), ids=list(GRIDS))
@pytest.mark.parametrize("block", ALL)
def test_shapes_and_the_way_back(block: Block, grid: tuple[int, int, int]) -> None:
    tokens, given = asked(grid)
    count = tokens.shape[1]
    with torch.no_grad():
        reduced = made(block)(tokens, **given)
    size = reduced.tokens.shape[1]
    assert reduced.tokens.shape == (2, size, CHANNELS)
    assert reduced.mask.shape == reduced.kept.shape == (2, size)
    assert reduced.mask.dtype == torch.bool
    assert size <= count + 1  # a rest token may come on top
    assert torch.isfinite(reduced.tokens[reduced.mask]).all()
    back = reduced.unmerge(reduced.tokens)
    assert back.shape == tokens.shape
    assert torch.isfinite(back).all()
    for row in range(2):
        places = reduced.kept[row][reduced.mask[row]]
        own = places[places >= 0]
        assert len(own.unique()) == len(own)  # no voxel twice
        assert (own < count).all()
    # another width goes back, too, and linearly
    wide = torch.randn(2, size, 3, dtype=torch.float64)
    assert torch.allclose(reduced.unmerge(2.0 * wide), 2.0 * reduced.unmerge(wide), atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_kept_voxels_come_back_bit_for_bit(block: Block) -> None:
    tokens, given = asked()
    with torch.no_grad():
        reduced = made(block)(tokens, **given)
        values = torch.randn(2, reduced.tokens.shape[1], 4, dtype=torch.float64)
        back = reduced.unmerge(values)
    for row in range(2):
        own = reduced.mask[row] & (reduced.kept[row] >= 0)
        assert torch.equal(back[row, reduced.kept[row][own]], values[row][own])


@pytest.mark.parametrize("block", ALL)
def test_deterministic_and_batch_independent(block: Block) -> None:
    tokens, given = asked()
    module = made(block)
    with torch.no_grad():
        reduced = module(tokens, **given)
        same(reduced, module(tokens, **given), atol=0)
        for row in range(2):
            part = {k: v[row : row + 1] if isinstance(v, Tensor) else v for k, v in given.items()}
            alone = module(tokens[row : row + 1], **part)
            n = int(alone.mask.sum())
            assert n == int(reduced.mask[row].sum())
            assert torch.allclose(alone.unmerge(alone.tokens)[0], reduced.unmerge(reduced.tokens)[row], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_padded_voxels_and_words_change_nothing(block: Block) -> None:
    tokens, given = asked()
    module = made(block)
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[0, 80:] = False
    mask[1, ::5] = False
    with torch.no_grad():
        reduced = module(tokens, mask=mask, **given)
        loud = torch.where(mask[..., None], tokens, 30.0)
        text = torch.where(given["text_mask"][..., None], given["text"], -30.0)
        scores = torch.where(mask, given["scores"], 99.0)
        again = module(loud, mask=mask, **{**given, "text": text, "scores": scores})
        for row in range(2):
            places = reduced.kept[row][reduced.mask[row]]
            assert mask[row][places[places >= 0]].all()  # padding is never kept
        real = mask[..., None]
        assert torch.allclose(
            reduced.unmerge(reduced.tokens).masked_fill(~real, 0),
            again.unmerge(again.tokens).masked_fill(~real, 0),
            atol=1e-8,
        )


@pytest.mark.parametrize("block", ALL)
def test_gradients_reach_the_tokens(block: Block) -> None:
    tokens, given = asked((2, 3, 4))
    module = made(block)
    leaf = tokens.clone().requires_grad_()
    reduced = module(leaf, **given)
    reduced.unmerge(reduced.tokens).square().sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().sum() > 0
    for name, parameter in module.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("block", ALL)
def test_equal_tokens_and_scores_do_not_crash(block: Block) -> None:
    _, given = asked()
    tokens = torch.ones(2, 105, CHANNELS, dtype=torch.float64)
    with torch.no_grad():
        reduced = made(block)(tokens, **{**given, "scores": torch.zeros(2, 105, dtype=torch.float64)})
        assert torch.isfinite(reduced.unmerge(reduced.tokens)).all()


@pytest.mark.parametrize("block", ALL)
def test_without_text_or_scores_it_works_or_declares_its_need(block: Block) -> None:
    tokens, given = asked()
    for missing in ("text", "scores"):
        less = {k: v for k, v in given.items() if not k.startswith(missing)}
        if missing in block.serves:  # declared: it cannot do without
            with pytest.raises(BlockInputError, match=f"^{block.key}: {missing}"):
                made(block)(tokens, **less)
            continue
        reduced = made(block)(tokens, **less)
        assert torch.isfinite(reduced.unmerge(reduced.tokens)).all()


@pytest.mark.parametrize("block", ALL)
def test_state_survives_a_round_trip(block: Block) -> None:
    tokens, given = asked((2, 3, 4))
    module = made(block)
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        same(module(tokens, **given), other(tokens, **given), atol=0)


@pytest.mark.parametrize("block", ALL)
def test_wrong_inputs_name_block_argument_and_remedy(block: Block) -> None:
    tokens, given = asked((2, 3, 4))
    module = made(block)
    wrong: list[tuple[str, Tensor, dict[str, Any]]] = [
        ("tokens", tokens[0], given),
        ("tokens", tokens[:, :0], {**given, "grid": None, "scores": None}),
        ("mask", tokens, {**given, "mask": torch.ones(2, 23, dtype=torch.bool)}),
        ("mask", tokens, {**given, "mask": torch.ones(2, 24)}),
        ("scores", tokens, {**given, "scores": torch.zeros(2, 25)}),
        ("grid", tokens, {**given, "grid": Grid((2, 3, 5))}),
        ("text", tokens, {**given, "text": given["text"][:1]}),
        ("text", tokens, {**given, "text": given["text"][..., :4]}),
        ("text", tokens, {**given, "text": given["text"][:, :0], "text_mask": None}),
        ("text", tokens, {**given, "text": given["text"].float()}),
        ("text_mask", tokens, {**given, "text_mask": torch.ones(2, 4, dtype=torch.bool)}),
        ("text_mask", tokens, {**given, "text_mask": torch.ones(2, 5)}),
        ("text_mask", tokens, {**given, "text": None}),
    ]
    for argument, values, keywords in wrong:
        with pytest.raises(BlockInputError) as caught:
            module(values, **keywords)
        assert str(caught.value).startswith(f"{block.key}: {argument}"), str(caught.value)
