"""What every attention block must do, whatever its formula. Each block's own property stands in its own test file."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from petground.models.blocks.contract import Block, BlockInputError, Grid
from tests.models.conformance.attention_cases import ALL, CAUSAL, CROSS, DIM, HEADS, SELF, asked, made, tokens
from tests.models.conformance.gradients import check_gradients
from tests.models.conformance.idle import declared, without_gradient

GRIDS = {"odd": (7, 9, 11), "one voxel": (1, 1, 1), "thin": (1, 6, 4)}


@pytest.mark.parametrize("grid", list(GRIDS.values()), ids=list(GRIDS))
@pytest.mark.parametrize("block", ALL)
def test_shape_type_and_determinism(block: Block, grid: tuple[int, int, int]) -> None:
    qkv, given = asked(block, grid)
    # a basis resized to a finer grid is flat at the rim: guesses tie there, and any of them is as good as another
    apart = {"lattice_zyx": grid} if block.key == "sparsifiner" else {}
    module = made(block, **apart)
    with torch.no_grad():
        out, _ = module(*qkv, **given)
        again, _ = module(*qkv, **given)
        single, _ = made(block, torch.float32, **apart)(*(one.float() for one in qkv), **given)
    assert out.shape == (*qkv[0].shape[:3], qkv[2].shape[3])
    assert out.dtype == torch.float64
    assert single.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert torch.equal(out, again)
    assert torch.allclose(single.double(), out, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("block", ALL)
def test_gradients(block: Block) -> None:
    """Against finite differences, for inputs and parameters; every parameter has one but those that the block names."""
    qkv, given = asked(block, (2, 3, 2))
    module = made(block)
    if block.key == "duo":
        with torch.no_grad():  # shares beyond 1 are taken for 1, with the gradient that leads back
            module.alpha.mul_(0.5)
    inputs = [one[:1].clone().requires_grad_() for one in qkv]
    check_gradients(lambda *x: module(*x, **given)[0], module, *inputs)
    module.train()(*inputs, **given)[0].square().sum().backward()
    without = {f".attention.{name}" for name in without_gradient(module)}
    assert without == declared(without, [block])
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in module.parameters())


@pytest.mark.parametrize("block", ALL)
def test_bfloat16_alone_and_under_autocast(block: Block) -> None:
    """As `trainer.precision: bf16-mixed` runs it: parameters in float32, heads in bfloat16."""
    qkv, given = asked(block, (2, 3, 4))
    qkv = [one.bfloat16().double() for one in qkv]  # the truth is of the same numbers: only the arithmetic rounds
    with torch.no_grad():
        truth, _ = made(block)(*qkv, **given)
        alone, _ = made(block, torch.bfloat16)(*(one.bfloat16() for one in qkv), **given)
    assert alone.dtype == torch.bfloat16
    inputs = [one.bfloat16().requires_grad_() for one in qkv]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = made(block, torch.float32)(*inputs, **given)
    mixed.float().square().sum().backward()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in inputs)
    for out in (alone, mixed.detach()):
        assert torch.isfinite(out).all()
        assert (out.double() - truth).norm() < 0.03 * truth.norm()


@pytest.mark.parametrize("keys", [7, 10], ids=["fewer", "as many"])
@pytest.mark.parametrize("block", CROSS)
def test_padded_keys_change_nothing(block: Block, keys: int) -> None:
    module = made(block)
    q, k, v = tokens(10), tokens(keys, seed=2), tokens(keys, seed=3)
    mask = torch.ones(2, keys, dtype=torch.bool)
    mask[:, 5:] = False
    mask[1, 3:] = False
    with torch.no_grad():
        out, _ = module(q, k, v, mask=mask, cross=True)
        loud_k = torch.where(mask[:, None, :, None], k, 100.0 * torch.ones_like(k))
        loud_v = torch.where(mask[:, None, :, None], v, -100.0 * torch.ones_like(v))
        assert torch.allclose(module(q, loud_k, loud_v, mask=mask, cross=True)[0], out, atol=1e-9)
        for row, real in enumerate((5, 3)):  # it is the keys that are padded, whatever their number
            some = slice(row, row + 1)
            short, _ = module(q[some], k[some, :, :real], v[some, :, :real], cross=True)
            assert torch.allclose(short[0], out[row], atol=1e-9)


@pytest.mark.parametrize("block", SELF)
def test_padded_voxels_change_nothing_for_the_others(block: Block) -> None:
    qkv, given = asked(block)
    q, k, v = qkv
    module = made(block)
    mask = torch.ones(2, q.shape[2], dtype=torch.bool)
    mask[0, 90:] = False
    mask[1, ::4] = False
    with torch.no_grad():
        out, _ = module(q, k, v, mask=mask, **given)
        assert torch.isfinite(out).all()
        hidden = ~mask[:, None, :, None]
        loud = [torch.where(hidden, sign * 50.0 * torch.ones_like(one), one) for one, sign in ((q, 1), (k, 1), (v, -1))]
        changed, _ = module(*loud, mask=mask, **given)
    assert torch.allclose(changed.masked_fill(hidden, 0), out.masked_fill(hidden, 0), atol=1e-8)


@pytest.mark.parametrize("block", ALL)
def test_nobody_to_look_at_gives_finite_numbers(block: Block) -> None:
    qkv, given = asked(block, (2, 3, 2))
    inputs = [one.clone().requires_grad_() for one in qkv]
    mask = torch.ones(2, inputs[1].shape[2], dtype=torch.bool)
    mask[1] = False
    out, _ = made(block)(*inputs, mask=mask, **given)
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert all(one.grad is None or torch.isfinite(one.grad).all() for one in inputs)


@pytest.mark.parametrize("block", ALL)
def test_exams_of_a_batch_do_not_see_each_other(block: Block) -> None:
    qkv, given = asked(block)
    module = made(block)
    with torch.no_grad():
        together, _ = module(*qkv, **given)
        for row in range(2):
            alone, _ = module(*(one[row : row + 1] for one in qkv), **given)
            assert torch.allclose(alone[0], together[row], atol=1e-9)


@pytest.mark.parametrize("keys", [7, 12], ids=["fewer", "as many"])
@pytest.mark.parametrize("block", CROSS)
def test_order_of_keys_does_not_matter(block: Block, keys: int) -> None:
    """Nor is a key taken for the voxel of its number."""
    q, k, v, grid = tokens(12), tokens(keys, seed=2), tokens(keys, seed=3), Grid((3, 2, 2))
    order = torch.arange(keys).roll(1)
    module = made(block)
    with torch.no_grad():
        out, _ = module(q, k, v, grid=grid, cross=True)
        turned, _ = module(q, k[:, :, order], v[:, :, order], grid=grid, cross=True)
    assert torch.allclose(out, turned, atol=1e-9)


@pytest.mark.parametrize("block", CROSS)
@pytest.mark.parametrize("keys", [1, 70])
def test_one_token_and_many(block: Block, keys: int) -> None:
    with torch.no_grad():
        out, _ = made(block)(tokens(12), tokens(keys, seed=2), tokens(keys, seed=3), cross=True)
    assert out.shape == (2, HEADS, 12, DIM)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("block", CAUSAL)
def test_causal_never_looks_ahead(block: Block) -> None:
    module = made(block)
    q, k, v = (tokens(12, seed=seed) for seed in (1, 2, 3))
    with torch.no_grad():
        out, _ = module(q, k, v, causal=True)
        later = [one.clone() for one in (q, k, v)]
        for one in later:
            one[:, :, 8:] += 3.0
        changed, _ = module(*later, causal=True)
    assert torch.allclose(changed[:, :, :8], out[:, :, :8], atol=1e-9)
    assert not torch.allclose(changed[:, :, 8:], out[:, :, 8:], atol=1e-3)


@pytest.mark.parametrize("block", SELF)
def test_noncausal_looks_both_ways(block: Block) -> None:
    """The first half of the tokens reads values of the second, and the other way round: not causal in disguise."""
    qkv, given = asked(block, (2, 4, 4))
    module = made(block)
    v = qkv[2].clone().requires_grad_()
    out, _ = module(qkv[0], qkv[1], v, **given)
    half = out.shape[2] // 2
    (first,) = torch.autograd.grad(out[:, :, :half].square().sum(), v, retain_graph=True)
    (second,) = torch.autograd.grad(out[:, :, half:].square().sum(), v)
    assert first[:, :, half:].abs().sum() > 0
    assert second[:, :, :half].abs().sum() > 0


@pytest.mark.parametrize("block", ALL)
def test_state_survives_a_round_trip(block: Block) -> None:
    qkv, given = asked(block, (2, 3, 2))
    module, other = made(block), made(block, seed=1)  # a buffer that is not saved would differ, too
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(module(*qkv, **given)[0], other(*qkv, **given)[0])


@pytest.mark.parametrize("block", ALL)
def test_map_on_request(block: Block) -> None:
    qkv, given = asked(block, (2, 3, 2))
    module = made(block)
    with torch.no_grad():
        out, weights = module(*qkv, need_weights=True, **given)
        plain, _ = module(*qkv, **given)
    assert torch.allclose(out, plain, atol=1e-9)
    if "weights" not in block.serves:
        assert weights is None
        return
    assert weights.shape == (*qkv[0].shape[:3], qkv[1].shape[2])
    assert (weights >= -1e-12).all()


@pytest.mark.parametrize("block", ALL)
def test_wrong_inputs_name_block_argument_and_remedy(block: Block) -> None:
    qkv, given = asked(block, (2, 3, 2))
    q, k, v = qkv
    module = made(block)
    causal = {"causal": True} if given.get("causal") else {}
    wrong: list[tuple[str, list[Tensor], dict[str, Any]]] = [
        ("mask", [q, k, v], {**given, "mask": torch.ones(2, k.shape[2] + 1, dtype=torch.bool)}),
        ("mask", [q, k, v], {**given, "mask": torch.ones(2, k.shape[2])}),
        ("grid", [q, k, v], {**given, "grid": Grid((5, 5, 5))}),
        ("k", [q, k[..., :2], v], given),
        ("v", [q, k, v.float()], given),
        ("q", [q[:, :, :0], k, v], {**given, "grid": None}),
        ("k", [q, k.to("meta"), v], given),
        ("v", [q, k, v.to("meta")], given),
        ("mask", [q, k, v], {**given, "mask": torch.ones(2, k.shape[2], dtype=torch.bool, device="meta")}),
    ]
    takes_cross = "cross" in inspect.signature(module.forward).parameters
    assert takes_cross or "cross" not in block.patterns
    if "cross" in block.patterns:
        wrong.append(("k", [q, k[:, :, :3], v[:, :, :3]], {"grid": given["grid"]}))  # nobody said that it is cross
    elif takes_cross:
        wrong.append(("cross", [q, k, v], {**given, "cross": True}))
    if "cross" not in block.patterns:
        wrong.append(("k", [q, k[:, :, :3], v[:, :, :3]], {**given, **causal}))
    if "causal" not in block.patterns:
        wrong.append(("causal", [q, k, v], {**given, "causal": True}))
    plain = torch.zeros(1, 1, q.shape[2], k.shape[2], dtype=q.dtype)
    if "bias" not in block.serves:
        wrong.append(("bias", [q, k, v], {**given, "bias": plain}))
    else:  # a mask is no bias
        others = (plain.bool(), plain.float(), plain.long(), plain.to("meta"), plain[0], plain[..., :2])
        wrong += [("bias", [q, k, v], {**given, "bias": other}) for other in others]
    if "grid" in block.serves:
        wrong.append(("grid", [q, k, v], {**given, "grid": None}))
    for argument, tensors, keywords in wrong:
        with pytest.raises(BlockInputError) as caught:
            module(*tensors, **keywords)
        said = str(caught.value)
        assert said.startswith(f"{block.key}: {argument} "), said
        assert ";" in said


@pytest.mark.parametrize("block", ALL)
def test_other_heads_than_it_was_made_for(block: Block) -> None:
    """Told, where it has parameters for each head; else served as they are."""
    qkv, given = asked(block, (2, 3, 2))
    module = made(block)
    for turned in ([one[:, :1] for one in qkv], [one.repeat(1, 2, 1, 1) for one in qkv], [one[..., :2] for one in qkv]):
        told = ""
        try:
            out, _ = module(*turned, **given)
        except BlockInputError as error:
            told = str(error)
        assert told.startswith((f"{block.key}: q ", f"{block.key}: v ")) if told else out.shape == turned[0].shape


@pytest.mark.parametrize("block", ALL)
def test_not_contiguous_is_served_alike(block: Block) -> None:
    qkv, given = asked(block, (2, 3, 2))
    module = made(block)
    with torch.no_grad():
        out, _ = module(*qkv, **given)
        turned = [one.transpose(1, 2).contiguous().transpose(1, 2) for one in qkv]
        assert not turned[0].is_contiguous()
        assert torch.allclose(module(*turned, **given)[0], out, atol=1e-12)
