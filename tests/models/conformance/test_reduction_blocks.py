"""What every token reduction must do. Each block's own property stands in its own test file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models.blocks.contract import Block, BlockInputError, Grid, Reduced
from tests.models.conformance.gradients import check_gradients
from tests.models.conformance.idle import declared, without_gradient
from tests.models.conformance.reduction_cases import ALL, CHANNELS, asked, back, made

GRIDS = {"odd": (7, 9, 11), "one voxel": (1, 1, 1), "thin": (1, 6, 4)}


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
    module.zero_grad()
    back(module.train()(leaf, **given)).square().sum().backward()
    without = {f".reduction.{name}" for name in without_gradient(module)}
    assert without == declared(without, [block])


# ia_red2's is that of its soft network, not of what it gives: compared in blocks/test_chosen_reductions.py
@pytest.mark.parametrize("block", [one for one in ALL if one.id != "ia_red2"])
def test_gradients_are_those_of_finite_differences(block: Block) -> None:
    tokens, given = asked((2, 3, 2))
    module = made(block)
    part = {k: v[:1] if isinstance(v, Tensor) else v for k, v in given.items()}

    def there_and_back(x: Tensor) -> tuple[Tensor, Tensor]:
        reduced = module(x, **part)
        return reduced.unmerge(reduced.tokens), torch.ones(()) if reduced.gain is None else reduced.gain

    leaf = tokens[:1].clone().requires_grad_()
    check_gradients(lambda x: there_and_back(x)[0], module, leaf)
    if module(leaf, **part).gain is not None:
        check_gradients(lambda x: there_and_back(x)[1], module, leaf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", ALL)
def test_other_types_stay_theirs(block: Block, dtype: torch.dtype) -> None:
    tokens, given = asked()
    cast = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
    leaf = tokens.to(dtype).requires_grad_()
    reduced = made(block, dtype)(leaf, **cast)
    back = reduced.unmerge(reduced.tokens)
    back.float().square().sum().backward()
    assert reduced.tokens.dtype == back.dtype == dtype
    assert torch.isfinite(back).all()
    assert torch.isfinite(leaf.grad).all()
    if dtype == torch.float32:
        with torch.no_grad():
            exact = made(block)(tokens, **given)
        assert torch.equal(exact.kept, reduced.kept)
        assert torch.allclose(exact.unmerge(exact.tokens), back.double(), atol=1e-3)


@pytest.mark.parametrize("block", ALL)
def test_the_text_is_read_where_the_block_says_so(block: Block) -> None:
    """By its `text_use`, which the network goes by: "needs" is refused in stages without text."""
    tokens, given = asked()
    del given["scores"]  # they may take the text's place
    module = made(block)
    with torch.no_grad():
        first = module(tokens, **given)
        changes = False
        for seed in range(6):
            torch.manual_seed(seed)
            reduced = module(tokens, **{**given, "text": torch.randn(2, 5, CHANNELS, dtype=torch.float64)})
            changes |= not torch.equal(reduced.kept, first.kept) or not torch.allclose(
                reduced.unmerge(reduced.tokens), first.unmerge(first.tokens), atol=1e-9
            )
    assert changes == (module.text_use != "ignores")
    if "text" in block.serves:
        assert module.text_use == "needs"


@pytest.mark.parametrize("block", ALL)
def test_not_contiguous_is_served_alike(block: Block) -> None:
    tokens, given = asked()
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[0, 80:] = False
    module = made(block)
    leaf = tokens.clone().requires_grad_()
    strided = tokens.transpose(1, 2).contiguous().requires_grad_()  # as features [B, C, N] become tokens
    turned = {key: one.T.contiguous().T for key, one in (("scores", given["scores"]), ("mask", mask))}
    turned["text"] = given["text"].transpose(0, 1).contiguous().transpose(0, 1)
    assert not any(one.is_contiguous() for one in (strided.transpose(1, 2), *turned.values()))
    reduced = module(leaf, mask=mask, **given)
    same(reduced, module(strided.transpose(1, 2), **{**given, **turned}), atol=1e-12)
    values = torch.randn(2, 3, reduced.tokens.shape[1], dtype=torch.float64).transpose(1, 2)
    assert torch.allclose(reduced.unmerge(values), reduced.unmerge(values.contiguous()), atol=1e-12)
    back(reduced).square().sum().backward()
    back(module(strided.transpose(1, 2), **{**given, **turned})).square().sum().backward()
    assert torch.allclose(strided.grad.transpose(1, 2), leaf.grad, atol=1e-9)


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
    module, other = made(block), made(block, seed=1)  # a buffer that is not saved would differ, too
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
        ("mask", tokens, {**given, "mask": torch.ones(2, 24, dtype=torch.bool, device="meta")}),
        ("scores", tokens, {**given, "scores": given["scores"].to("meta")}),
        ("text", tokens, {**given, "text": given["text"].to("meta")}),
        ("text_mask", tokens, {**given, "text_mask": given["text_mask"].to("meta")}),
    ]
    for argument, values, keywords in wrong:
        with pytest.raises(BlockInputError) as caught:
            module(values, **keywords)
        assert str(caught.value).startswith(f"{block.key}: {argument}"), str(caught.value)
