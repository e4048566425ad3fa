"""The backends that run on any CPU: activations, gates and temperature against the reference, and their contracts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petground.kernels._shared import dispatch
from petground.kernels.cross_attention import (
    BackendUnavailableError,
    KernelInputError,
    chunked,
    cross_attention,
    fold_output,
)
from petground.kernels.memory import reuse_memory
from petground.kernels.text_to_voxel import chunked as text_to_voxel_chunked
from petground.kernels.text_to_voxel import text_to_voxel
from tests.kernels.comparing import LIMITS, assert_close, assert_gradients_close, operands, poisoned

# batch, heads, queries, keys, D, E; of the last two several blocks of scores are made
CROSS = [(2, 2, 70, 1, 8, 8), (3, 1, 5, 7, 5, 9), (2, 2, 2100, 140, 12, 8)]
LONG = [(2, 1, 1, 33, 8, 8), (1, 2, 7, 1, 4, 6), (2, 2, 70, 4000, 8, 12)]
GATES = ["none", "tanh", "residual_tanh"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "softplus"])
@pytest.mark.parametrize("number", range(3))
def test_cross_attention_in_blocks_equals_reference(
    number: int, activation: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "_BLOCK_SCORES", 1 << 15)
    size, gate = CROSS[number], GATES[number]
    q, k, v, mask = operands(size, dtype, permuted=number > 0)
    tensors = {"q": q, "k": k, "v": v, "temperature": torch.linspace(0.6, 1.4, size[1], dtype=torch.float64)}
    if gate != "none":
        tensors["x"] = operands((*size[:3], 1, size[5], 1), dtype, seed=3)[0]
    options = {"mask": mask, "activation": activation, "gate": gate, "shift": 0.0 if activation == "softmax" else -1.0}
    with poisoned():
        assert_gradients_close(
            lambda **t: cross_attention(**t, **options, backend="chunked"),
            lambda **t: cross_attention(**t, **options, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "softplus"])
@pytest.mark.parametrize("size", LONG)
def test_text_to_voxel_in_blocks_equals_reference(
    size: tuple[int, int, int, int, int, int], activation: str, dtype: torch.dtype
) -> None:
    q, k, v, mask = operands(size, dtype, permuted=size[1] > 1)
    tensors = {"q": q, "k": k, "v": v, "temperature": torch.linspace(0.6, 1.4, size[1], dtype=torch.float64)}
    options = {"mask": mask, "activation": activation, "shift": 0.0 if activation == "softmax" else -1.0}
    with poisoned():
        assert_gradients_close(
            lambda **t: text_to_voxel(**t, **options, backend="chunked"),
            lambda **t: text_to_voxel(**t, **options, backend="reference"),
            tensors,
            LIMITS[dtype],
        )


@pytest.mark.parametrize("operator", [cross_attention, text_to_voxel])
@pytest.mark.parametrize("backend", ["sdpa", "chunked", "reference"])
def test_a_learned_temperature_reaches_every_backend(operator: Callable[..., Tensor], backend: str) -> None:
    q, k, v, mask = operands((2, 2, 9, 11, 8, 8), torch.float32)
    for temperature in (torch.tensor(0.7), torch.tensor([0.5, 1.5])):
        assert_gradients_close(
            lambda **t: operator(**t, mask=mask, backend=backend),
            lambda **t: operator(**t, mask=mask, backend="reference"),
            {"q": q, "k": k, "v": v, "temperature": temperature},
            LIMITS[torch.float32],
        )
    half = operator(q, k, v, mask=mask, temperature=0.5, backend=backend)
    assert_close("out", operator(2.0 * q, k, v, mask=mask, backend="reference"), half, 1e-6)


@pytest.mark.parametrize("operator", [cross_attention, text_to_voxel])
@pytest.mark.parametrize("activation", ["softmax", "softplus"])
def test_gradcheck_in_float64(operator: Callable[..., Tensor], activation: str) -> None:
    q, k, v, mask = operands((2, 1, 3, 4, 3, 2), torch.float64)
    leaves = [t.requires_grad_() for t in (q, k, v, torch.tensor([0.8], dtype=torch.float64))]
    gated: dict[str, Any] = {"x": torch.randn(2, 1, 3, 2, dtype=torch.float64), "gate": "tanh"}
    options = gated if operator is cross_attention else {}

    def run(q: Tensor, k: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        return operator(
            q, k, v, mask=mask, temperature=temperature, activation=activation, backend="chunked", **options
        )

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("operator", [cross_attention, text_to_voxel])
def test_compiles_into_one_graph(operator: Callable[..., Tensor]) -> None:
    q, k, v, mask = operands((2, 2, 30, 12, 8, 8), torch.float32, permuted=True)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    for backend, activation in (("chunked", "sigmoid"), ("auto", "softmax")):

        def run(
            q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, backend: str = backend, activation: str = activation
        ) -> Tensor:
            return operator(q, k, v, mask=mask, activation=activation, backend=backend) * 2.0

        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        grads = torch.autograd.grad(compiled(*leaves, mask).sum(), leaves)
        truths = torch.autograd.grad(run(*leaves, mask).sum(), leaves)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(grads, truths, strict=True))


@pytest.mark.parametrize("name", ["cross_attention", "text_to_voxel"])
@pytest.mark.parametrize("permuted", [False, True])
def test_opcheck(name: str, permuted: bool) -> None:
    q, k, v, mask = operands((2, 2, 6, 5, 4, 3), torch.float32, permuted=permuted)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    scale = torch.full((2,), 0.3, requires_grad=True)
    if name == "cross_attention":
        x = torch.randn(2, 2, 3, 6).transpose(2, 3).requires_grad_()
        rest: tuple[Any, ...] = (x, "softmax", "tanh", 0.0, "chunked")
    else:
        rest = ("softplus", 0.5, "chunked")
    torch.library.opcheck(getattr(torch.ops.petground, name).default, (*leaves, mask, scale, *rest))


@pytest.mark.parametrize("permuted", [False, True])
def test_opcheck_of_the_backwards(permuted: bool) -> None:
    """A compiled step asserts the strides that the fake form tells."""
    q, k, v, mask = operands((2, 2, 6, 5, 4, 3), torch.bfloat16, permuted=permuted)
    scale, ops = torch.full((2,), 0.3), torch.ops.petground
    for forward, backward, given, more in (
        (ops.cross_attention, ops.cross_attention_backward, (None, "softmax", "none", 0.0, "chunked"), (None,)),
        (ops.text_to_voxel, ops.text_to_voxel_backward, ("softmax", 0.0, "chunked"), ()),
    ):
        out, stat = forward(q, k, v, mask, scale, *given)
        rest = given[len(more) :]
        operands_of = (torch.ones_like(out), q, k, v, mask, scale, *more, out, stat, *rest)
        torch.library.opcheck(backward.default, operands_of, test_utils="test_faketensor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_lies_as_its_queries(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries with channels first in memory get an answer and a gradient that lie so, the same numbers as otherwise."""
    monkeypatch.setattr(chunked, "_BLOCK_SCORES", 1 << 7)  # several blocks
    q, k, v, mask = operands((2, 3, 300, 7, 8, 5), dtype)
    found = []
    for first in (False, True):
        given = q.mT.contiguous().mT if first else q.transpose(1, 2).contiguous().transpose(1, 2)
        leaves = [one.detach().requires_grad_() for one in (given, k, v)]
        out = cross_attention(*leaves, mask=mask, backend="chunked")
        grads = torch.autograd.grad(out, leaves, torch.ones_like(out) + out.detach())
        assert (out.mT.is_contiguous(), grads[0].mT.is_contiguous()) == (first, first)
        found.append([out, *grads])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    leaves = [one.detach().requires_grad_() for one in (q.mT.contiguous().mT, k, v)]
    scale, op = torch.full((3,), 0.3), torch.ops.petground.cross_attention.default
    torch.library.opcheck(op, (*leaves, mask, scale, None, "softmax", "none", 0.0, "chunked"),
                          test_utils=("test_faketensor", "test_aot_dispatch_static"))  # fmt: skip


def test_scores_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor of forward and backward in blocks is far below N x P, however many threads."""
    monkeypatch.setattr(chunked, "_BLOCK_SCORES", 1 << 16)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            for tensor in found if isinstance(found, (tuple, list)) else (found,):
                if isinstance(tensor, Tensor):
                    self.seen = max(self.seen, tensor.untyped_storage().nbytes() // tensor.element_size())
            return found

    q, k, v, _ = operands((1, 1, 80_000, 64, 8, 8), torch.float32)
    scale = torch.full((1,), 0.3)
    with Largest() as largest:  # by the functions: of an operator such a mode sees the outside alone
        out, stat = chunked.forward_chunked(q, k, v, None, scale, None, "softmax", "none", 0.0)
        chunked.backward_chunked(out, q, k, v, None, scale, None, None, stat, "softmax", "none", 0.0)
    with Largest() as turned:
        out, stat = text_to_voxel_chunked.forward_chunked(k, q, q, None, scale, "softplus", 0.0)
        text_to_voxel_chunked.backward_chunked(out, k, q, q, None, scale, out, stat, "softplus", 0.0)
    assert q.numel() <= min(largest.seen, turned.seen)
    assert max(largest.seen, turned.seen) < 80_000 * 64 / 4


def test_one_heads_output_layer_folds_into_the_values_exactly() -> None:
    """The published gate, x * tanh(Linear(attention)), without a layer on the voxels; also for an empty text."""
    q, k, v, mask = operands((2, 1, 50, 6, 8, 8), torch.float64)
    layer, x = nn.Linear(8, 12, dtype=torch.float64), torch.randn(2, 1, 50, 12, dtype=torch.float64)
    truth = x * torch.tanh(layer(cross_attention(q, k, v, mask=mask, backend="reference")))
    folded, keep = fold_output(v, layer.weight, layer.bias, mask)
    for backend in ("reference", "chunked", "sdpa"):
        found = cross_attention(q, k, folded, mask=keep, x=x, gate="tanh", backend=backend)
        assert torch.allclose(found, truth, atol=1e-12)
    with pytest.raises(KernelInputError, match="H=1"):
        fold_output(v.expand(2, 2, 6, 8), layer.weight)


def test_wrong_operands_are_named() -> None:
    q, k, v, mask = operands((2, 2, 9, 6, 4, 4), torch.float32)
    for options, word in [
        ({"activation": "relu"}, "relu"),
        ({"shift": 1.0}, "shift"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": torch.ones(3)}, "H=2"),
        ({"gate": "tanh"}, "x is missing"),
        ({"x": q}, "gate is 'none'"),
        ({"x": q[:, :1], "gate": "tanh"}, "x is"),
        ({"x": q, "gate": "softmax"}, "gate is 'softmax'"),
    ]:
        with pytest.raises(KernelInputError, match=word):
            cross_attention(q, k, v, mask=mask, **options)
    with pytest.raises(KernelInputError, match="size 0"):
        cross_attention(q[:, :, :0], k, v)
    with pytest.raises(KernelInputError, match="mask is"):
        text_to_voxel(q, k, v, mask=mask[:, :2])


@pytest.mark.parametrize("operator", [cross_attention, text_to_voxel])
def test_a_backend_that_cannot_serve_says_what_would(operator: Callable[..., Tensor]) -> None:
    q, k, v, _ = operands((1, 1, 3, 2, 4, 4), torch.float32)
    with pytest.raises(BackendUnavailableError, match=r"triton.*(NVIDIA|installed).*sdpa"):
        operator(q, k, v, backend="triton")
    with pytest.raises(BackendUnavailableError, match=r"sdpa.*sigmoid.*chunked"):
        operator(q, k, v, activation="sigmoid", backend="sdpa")
    with pytest.raises(BackendUnavailableError, match="no backend 'cute'"):
        operator(q, k, v, backend="cute")


def test_what_auto_picks_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    q, k, v, _ = operands((1, 1, 3, 2, 4, 4), torch.float32)
    dispatch._say_once.cache_clear()
    with caplog.at_level(logging.INFO, "petground.kernels"):
        for _ in range(3):
            cross_attention(q, k, v, activation="sigmoid")
    assert [r.getMessage() for r in caplog.records] == ["cross_attention on cpu torch.float32 sigmoid: backend chunked"]


@pytest.mark.parametrize(
    ("size", "dtype", "takes"),
    [
        ((1, 2, 70, 9, 8, 8), torch.bfloat16, "chunked"),
        ((1, 2, 70, 300, 48, 48), torch.float16, "chunked"),
        ((1, 2, 4100, 9, 8, 8), torch.float32, "chunked"),
        ((1, 2, 4100, 9, 8, 48), torch.float32, "sdpa"),
        ((1, 2, 4100, 48, 8, 8), torch.float32, "sdpa"),
        ((1, 2, 70, 9, 8, 8), torch.float32, "sdpa"),
    ],
)
def test_auto_on_cpus_is_the_backend_that_was_measured_to_be_quicker(
    size: tuple[int, ...], dtype: torch.dtype, takes: str
) -> None:
    """Bit for bit, the gradient of a temperature, too, which PyTorch rounds in 16 bits."""
    q, k, v, mask = operands(size, dtype)
    found = []
    for backend in ("auto", takes):
        temperature = torch.tensor(0.2, requires_grad=True)
        out = cross_attention(q, k, v, mask=mask, temperature=temperature, backend=backend)
        (slope,) = torch.autograd.grad(out.float().square().sum(), temperature)
        found.append((out, slope))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("keys", [1, 5])
def test_a_padded_entry_is_reckoned_as_if_its_padding_were_not_there(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blocks: entries one at a time, whose real keys alone take part, and one that has none."""
    monkeypatch.setattr(chunked, "_BLOCK_SCORES", 1 << 12)
    q, k, v, _ = operands((3, 2, 3000, 9, 8, 6), torch.float32)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 9 - keys :], mask[1, ::2] = True, True
    k, v = (one.clone().masked_fill_(~mask[:, None, :, None], 1e4) for one in (k, v))
    k, v = (one.requires_grad_() for one in (k, v))
    out = cross_attention(q, k, v, mask=mask, backend="chunked")
    short = cross_attention(q[:1], k[:1, :, 9 - keys :], v[:1, :, 9 - keys :], backend="chunked")
    torch.testing.assert_close(out[:1], short, atol=1e-5, rtol=1e-5)
    assert not out[2].any()
    for gradient in torch.autograd.grad(out[:2].sum(), (k, v)):
        assert not gradient[0, :, : 9 - keys].any()
        assert gradient[0, :, 9 - keys :].isfinite().all()


def test_reusing_memory_says_whether_it_took_hold() -> None:
    """In a process of its own: it cannot be undone."""
    import subprocess
    import sys

    code = "from petground.kernels.memory import reuse_memory; import sys; sys.exit(0 if reuse_memory() else 3)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    import platform

    assert done.returncode == (0 if platform.libc_ver()[0] == "glibc" else 3)
    assert callable(reuse_memory)
