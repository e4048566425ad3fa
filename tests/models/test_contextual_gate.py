"""The published block's invariants, and those of its options."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from petground.models import build
from petground.models.blocks.contextual_gate import voxel_places


def _gate(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build("fusion", "contextual_gate", channels=8, text_channels=6, **options)


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 4 + [False] * 3, [True] * 7])
    return torch.randn(2, 8, 3, 4, 5), torch.randn(2, 7, 6), mask


OPTIONS = [
    {},
    {"num_heads": 4, "norm": True, "coordinates": "linear"},
    {"num_heads": 2, "norm": True, "coordinates": "fourier", "form": "residual_gate"},
]


def test_published_form_is_the_default() -> None:
    x, tokens, mask = _inputs()
    gate = _gate()
    x1, t1 = x[1:], tokens[1:]  # no padding there: plain softmax attention, written out
    text = gate.text(t1)
    voxels = x1.flatten(2).transpose(1, 2)
    scores = gate.query(voxels) @ gate.key(text).transpose(1, 2) / 8**0.5
    answer = gate.out(scores.softmax(-1) @ gate.value(text)).transpose(1, 2).reshape(x1.shape)
    assert torch.allclose(gate(x, tokens, mask)[0][1:], x1 * answer.tanh(), atol=1e-6)


def test_gate_never_grows_a_feature() -> None:
    x, tokens, mask = _inputs()
    assert (_gate()(x, 100 * tokens, mask)[0].abs() <= x.abs()).all()


def test_zero_output_projection_closes_the_gate_or_is_the_identity() -> None:
    x, tokens, mask = _inputs()
    gate = _gate()
    nn.init.zeros_(gate.out.weight)
    nn.init.zeros_(gate.out.bias)
    assert gate(x, tokens, mask)[0].abs().max() == 0
    assert torch.equal(_gate(form="residual_gate")(x, tokens, mask)[0], x)  # its state at the start


@pytest.mark.parametrize("options", OPTIONS)
def test_order_and_padding_of_tokens_do_not_matter(options: dict[str, object]) -> None:
    x, tokens, mask = _inputs()
    gate = _gate(**options)
    nn.init.normal_(gate.out.weight)
    out, said = gate(x, tokens, mask)
    assert said is tokens
    assert not torch.allclose(out, gate(x, tokens.flip(0), mask)[0], atol=1e-3)
    order = torch.tensor([3, 1, 0, 2, 4, 5, 6])
    assert torch.allclose(out, gate(x, tokens[:, order], mask)[0], atol=1e-5)
    padded = tokens.clone()
    padded[~mask] = 50.0
    assert torch.equal(out, gate(x, padded, mask)[0])


def test_coordinates_tell_left_from_right_and_nothing_else_does() -> None:
    same_everywhere = torch.ones(1, 8, 2, 2, 6)
    tokens, mask = torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool)
    assert _gate()(same_everywhere, tokens, mask)[0].std((2, 3, 4)).max() < 1e-6
    out, _ = _gate(coordinates="linear")(same_everywhere, tokens, mask)
    assert not torch.allclose(out[..., 0], out[..., 5], atol=1e-4)


def test_coordinates_are_of_the_place_not_of_the_resolution() -> None:
    fine = voxel_places((2, 4, 8)).reshape(2, 4, 8, 3)
    coarse = voxel_places((1, 2, 4)).reshape(1, 2, 4, 3)
    assert torch.allclose(fine.reshape(1, 2, 2, 2, 4, 2, 3).mean((1, 3, 5)), coarse)
    assert fine[0, 0, 0].tolist() == [-0.5, -0.75, -0.875]  # z, y, x
    assert fine[0, 0, 7, 2] > 0


def test_no_fusion_passes_features_through() -> None:
    x, tokens, mask = _inputs()
    same, said = build("fusion", "none", channels=8, text_channels=6)(x, tokens, mask)
    assert same is x
    assert said is tokens


def test_a_patch_has_the_coordinates_of_its_place_in_the_exam() -> None:
    whole = voxel_places((4, 6, 8)).reshape(4, 6, 8, 3)
    # the patch [1:3, 3:6, 2:4] of the whole grid
    box = torch.tensor([[[2 / 4 - 1, 6 / 6 - 1, 4 / 8 - 1], [6 / 4 - 1, 12 / 6 - 1, 8 / 8 - 1]]])
    patch = voxel_places((2, 3, 2), box).reshape(2, 3, 2, 3)
    assert torch.allclose(patch, whole[1:3, 3:6, 2:4], atol=1e-6)
    assert not torch.allclose(patch, voxel_places((2, 3, 2)).reshape(2, 3, 2, 3))


def test_sentences_of_an_exam_share_its_box() -> None:
    _, tokens, mask = _inputs()
    gate = _gate(num_heads=2, norm=True, coordinates="fourier", form="residual_gate")
    nn.init.normal_(gate.out.weight)
    x, tokens, mask = torch.randn(4, 8, 2, 3, 4), tokens.repeat(2, 1, 1), mask.repeat(2, 1)
    box = torch.tensor([[[-1.0, -1.0, -1.0], [0.0, 0.5, 1.0]], [[0.0, -0.5, -1.0], [1.0, 1.0, 0.25]]])
    together, _ = gate(x, tokens, mask, box)
    for n in range(4):  # exams 0, 0, 1, 1
        alone, _ = gate(x[n : n + 1], tokens[n : n + 1], mask[n : n + 1], box[n // 2 : n // 2 + 1])
        assert torch.allclose(alone[0], together[n], atol=1e-5)


@pytest.mark.parametrize("form", ["gate", "residual_gate"])
def test_one_head_is_gated_in_the_kernel_with_the_same_answers_and_gradients(form: str) -> None:
    """Dropout that drops next to nothing takes the layers one by one; an entry without a word is among them."""
    x, tokens, mask = (one.double() if one.is_floating_point() else one for one in _inputs())
    x, tokens, mask = torch.cat([x, x[:1]]), torch.cat([tokens, tokens[:1]]), torch.cat([mask, mask[:1] & False])
    gates = [_gate(form=form, norm=True, coordinates="linear", dropout=p).double() for p in (0.0, 1e-12)]
    nn.init.normal_(gates[0].out.weight)
    nn.init.normal_(gates[0].out.bias)
    gates[1].load_state_dict(gates[0].state_dict())
    calls, outs, grads = [], [], []
    for gate in gates:
        gate.out.register_forward_hook(lambda *_: calls.append(1))
        given = x.clone().requires_grad_(), tokens.clone().requires_grad_()
        out, _ = gate.train()(given[0], given[1], mask)
        push = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape)
        outs.append(out)
        grads.append(torch.autograd.grad(out, [*given, *gate.parameters()], push))
        assert len(calls) == len(outs) - 1  # N rows go through the layer in the second alone
    assert torch.allclose(*outs, atol=1e-12)
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
