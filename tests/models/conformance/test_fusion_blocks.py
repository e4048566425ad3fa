"""What every fusion must do, whatever its formula. Each block's own property stands in its own test file."""

from __future__ import annotations

import inspect

import pytest
import torch

from petground.models.blocks.contract import Block
from tests.models.conformance.fusion_cases import ALL, BOX, CHANNELS, TEXT, WORDS, asked, built, made, serving, skip_of
from tests.models.conformance.gradients import check_gradients
from tests.models.conformance.memory import largest_tensor

GRIDS = {"odd": (7, 9, 11), "one voxel": (1, 1, 1), "thin": (1, 6, 4)}


@pytest.mark.parametrize("grid", list(GRIDS.values()), ids=list(GRIDS))
@pytest.mark.parametrize("block", ALL)
def test_shape_type_and_determinism(block: Block, grid: tuple[int, int, int]) -> None:
    x, tokens, mask = asked(grid)
    module, given = made(block), skip_of(block, x, 2)
    with torch.no_grad():
        out, said = module(x, tokens, mask, BOX, **given)
        again, said_again = module(x, tokens, mask, BOX, **given)
        single, single_said = made(block, torch.float32)(
            x.float(), tokens.float(), mask, BOX.float(), **{key: value.float() for key, value in given.items()}
        )
    assert (out.shape, out.dtype, said.shape, said.dtype) == (x.shape, x.dtype, tokens.shape, tokens.dtype)
    assert torch.isfinite(out).all()
    assert torch.isfinite(said).all()
    assert torch.equal(out, again)
    assert torch.equal(said, said_again)
    assert single.dtype == single_said.dtype == torch.float32
    assert torch.allclose(single.double(), out, atol=1e-3, rtol=1e-3)
    assert torch.allclose(single_said.double(), said, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("block", ALL)
def test_bfloat16_stays_finite_and_in_its_type(block: Block) -> None:
    x, tokens, mask = asked(dtype=torch.bfloat16)
    with torch.no_grad():
        out, said = made(block, torch.bfloat16)(x, tokens, mask, BOX.float(), **skip_of(block, x, 2))
    assert out.dtype == said.dtype == torch.bfloat16
    assert torch.isfinite(out).all()
    assert torch.isfinite(said).all()


@pytest.mark.parametrize("block", ALL)
def test_under_autocast_both_streams_keep_their_type(block: Block) -> None:
    """As training runs: features in bfloat16, tokens in float32."""
    x, tokens, mask = asked(dtype=torch.float32)
    x = x.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out, said = made(block, torch.float32)(x, tokens, mask, BOX.float(), **skip_of(block, x.detach(), 2))
    out.float().square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert said.dtype == torch.float32
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("block", ALL)
def test_gradients(block: Block) -> None:
    """Against finite differences, for both streams and the parameters; every parameter has one from the two outputs."""
    x, tokens, mask = asked((2, 3, 2))
    module, given = made(block), skip_of(block, x, 2)
    leaves = [x.clone().requires_grad_(), tokens.clone().requires_grad_()]
    check_gradients(lambda *streams: module(*streams, mask, BOX, **given), module, *leaves)
    out, said = module(*leaves, mask, BOX, **given)
    (out.square().sum() + said.square().sum()).backward()
    without = [
        name for name, one in module.named_parameters() if one.grad is None or not torch.isfinite(one.grad).all()
    ]
    assert without == []


@pytest.mark.parametrize("block", serving("identity"))
def test_starts_as_the_identity(block: Block) -> None:
    x, tokens, mask = asked(dtype=torch.float32)
    module = built(block).eval()
    given = skip_of(block, x, 2)
    with torch.no_grad():
        out, said = module(x, tokens, mask, BOX.float(), **given)
    assert torch.equal(out, x)
    assert torch.equal(said, tokens)
    if block.key == "none":
        return
    # and it leaves there: some parameter gets a gradient
    out, _ = module.train()(x, tokens, mask, BOX.float(), **given)
    (out * torch.randn_like(out)).sum().backward()
    assert any(one.grad is not None and one.grad.abs().max() > 0 for one in module.parameters())


@pytest.mark.parametrize("block", ALL)
def test_tokens_change_only_where_the_block_says_so(block: Block) -> None:
    x, tokens, mask = asked()
    with torch.no_grad():
        _, said = made(block)(x, tokens, mask, BOX)
    assert torch.equal(said[~mask], tokens[~mask])
    changed = not torch.allclose(said[mask], tokens[mask], atol=1e-6)
    assert changed == ("tokens" in block.serves)


@pytest.mark.parametrize("block", ALL)
def test_text_reaches_the_voxels(block: Block) -> None:
    x, tokens, mask = asked()
    module = made(block)
    with torch.no_grad():
        out, _ = module(x, tokens, mask, BOX)
        other, _ = module(x, tokens.flip(0), mask, BOX)
    assert torch.equal(out, other) == (block.key == "none")


@pytest.mark.parametrize("block", ALL)
def test_padded_tokens_change_nothing(block: Block) -> None:
    x, tokens, mask = asked()
    module, given = made(block), skip_of(block, x, 2)
    loud = torch.where(mask[..., None], tokens, 50.0)
    with torch.no_grad():
        out, said = module(x, tokens, mask, BOX, **given)
        loud_out, loud_said = module(x, loud, mask, BOX, **given)
        # nor does more padding
        more = torch.cat([tokens, torch.full_like(tokens[:, :2], -9.0)], dim=1)
        longer = torch.cat([mask, torch.zeros_like(mask[:, :2])], dim=1)
        more_out, more_said = module(x, more, longer, BOX, **given)
    assert torch.allclose(loud_out, out, atol=1e-9)
    assert torch.allclose(loud_said[mask], said[mask], atol=1e-9)
    assert torch.allclose(more_out, out, atol=1e-9)
    assert torch.allclose(more_said[:, :WORDS][mask], said[mask], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_permuting_tokens_permutes_the_tokens_and_leaves_the_voxels(block: Block) -> None:
    """Words carry their place in the sentence within themselves: a fusion is no second text encoder."""
    x, tokens, mask = asked()
    module, given, order = made(block), skip_of(block, x, 2), torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        out, said = module(x, tokens, mask, BOX, **given)
        turned, turned_said = module(x, tokens[:, order], mask[:, order], BOX, **given)
    assert torch.allclose(turned, out, atol=1e-9)
    assert torch.allclose(turned_said, said[:, order], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_sentences_do_not_see_each_other_and_share_their_exams_box(block: Block) -> None:
    """Two exams with two sentences each, which stand together, against each sentence alone."""
    x, tokens, mask = asked(batch=4)
    module, given = made(block), skip_of(block, x, 2)
    with torch.no_grad():
        out, said = module(x, tokens, mask, BOX, **given)
        for n in range(4):
            part, exam = slice(n, n + 1), slice(n // 2, n // 2 + 1)
            own = {key: value[exam] for key, value in given.items()}
            alone, alone_said = module(x[part], tokens[part], mask[part], BOX[exam], **own)
            assert torch.allclose(alone[0], out[n], atol=1e-9)
            assert torch.allclose(alone_said[0], said[n], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
def test_empty_text_is_defined(block: Block) -> None:
    """All tokens masked: finite, independent of what is masked, and without gradients that are not."""
    x, tokens, mask = asked()
    mask[1] = False
    leaves = [x.clone().requires_grad_(), tokens.clone().requires_grad_()]
    module, given = made(block), skip_of(block, x, 2)
    out, said = module(*leaves, mask, BOX, **given)
    (out.square().sum() + said.square().sum()).backward()
    assert torch.isfinite(out).all()
    assert torch.equal(said[1], tokens[1])
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in leaves)
    with torch.no_grad():
        other, _ = module(x, tokens * 3.0 + 1.0, mask, BOX, **given)
    assert torch.allclose(other[1], out[1], atol=1e-9)


@pytest.mark.parametrize("block", ALL)
@pytest.mark.parametrize("words", [1, 40])
def test_one_token_and_many(block: Block, words: int) -> None:
    x, _, _ = asked()
    tokens, mask = torch.randn(2, words, TEXT, dtype=torch.float64), torch.ones(2, words, dtype=torch.bool)
    with torch.no_grad():
        out, said = made(block)(x, tokens, mask)
    assert torch.isfinite(out).all()
    assert said.shape == (2, words, TEXT)
    assert torch.isfinite(said).all()


@pytest.mark.parametrize("block", ALL)
def test_the_box_is_read_where_the_block_says_so(block: Block) -> None:
    x, tokens, mask = asked()
    module = made(block)
    with torch.no_grad():
        out, _ = module(x, tokens, mask, BOX)
        elsewhere, _ = module(x, tokens, mask, BOX.flip(0))
    assert torch.allclose(out, elsewhere, atol=1e-9) == ("box" not in block.serves)
    whole = torch.tensor([[[-1.0] * 3, [1.0] * 3]], dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(module(x, tokens, mask, whole)[0], module(x, tokens, mask, None)[0], atol=1e-6)


@pytest.mark.parametrize("block", ALL)
def test_without_coordinates_the_box_means_nothing(block: Block) -> None:
    if "coordinates" not in inspect.signature(block.cls).parameters:
        pytest.skip("it has no coordinates to switch off")
    x, tokens, mask = asked()
    module = made(block, coordinates="none")
    with torch.no_grad():
        assert torch.equal(module(x, tokens, mask, BOX)[0], module(x, tokens, mask, None)[0])


@pytest.mark.parametrize("block", serving("skip"))
def test_the_encoders_features_are_read(block: Block) -> None:
    x, tokens, mask = asked()
    module = made(block)
    with torch.no_grad():
        out, _ = module(x, tokens, mask, BOX, **skip_of(block, x, 2))
        without, _ = module(x, tokens, mask, BOX)
    assert not torch.allclose(out, without, atol=1e-6)


@pytest.mark.parametrize("block", ALL)
def test_state_survives_a_round_trip(block: Block) -> None:
    x, tokens, mask = asked((2, 3, 2))
    module, other = made(block), made(block, seed=1)  # a buffer that is not saved would differ, too
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(module(x, tokens, mask), other(x, tokens, mask), strict=True))


@pytest.mark.parametrize("block", ALL)
def test_not_contiguous_is_served_alike(block: Block) -> None:
    x, tokens, mask = asked()
    module = made(block)
    turned = x.movedim(1, -1).contiguous().movedim(-1, 1), tokens.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned[0].is_contiguous()
    with torch.no_grad():
        for a, b in zip(module(*turned, mask.T.contiguous().T, BOX), module(x, tokens, mask, BOX), strict=True):
            assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("block", ALL)
def test_no_map_of_voxels_by_voxels_is_held(block: Block) -> None:
    """Whatever attends to what: no tensor that an operator gives back comes near N x N."""
    x, tokens, mask = asked((12, 10, 14), dtype=torch.float32)
    module, given, n = made(block, torch.float32), skip_of(block, x, 2), 12 * 10 * 14
    with torch.no_grad(), largest_tensor() as largest:
        module(x, tokens, mask, BOX.float(), **given)
    assert largest.numbers < n * n / 8, largest.shape  # half a map of the strided keys
    assert largest.numbers <= 2 * n * max(4 * CHANNELS, 2 * 21), largest.shape  # two sentences, a feed-forward's width
