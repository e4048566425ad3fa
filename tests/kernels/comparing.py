"""What the kernels' tests share: the error measure, made-up attention operands, poisoned memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor

__all__ = ["assert_close", "assert_equals_reference", "assert_gradients_close", "operands", "poisoned"]

# RMS error over RMS of the truth. 16-bit: products and stores round once each, as PyTorch's own do.
LIMITS = {torch.float64: 1e-11, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
_GUARD = 64


def assert_close(name: str, truth: Tensor, found: Tensor, ratio: float) -> None:
    """Shape, and root-mean-square error as a share of the truth's root mean square; a truth of zero must be met."""
    assert found.shape == truth.shape, f"{name}: {tuple(found.shape)} for {tuple(truth.shape)}"
    a, b = truth.detach().double(), found.detach().double()
    assert torch.isfinite(b).all(), f"{name}: not finite"
    size, error = a.square().mean().sqrt().item(), (a - b).square().mean().sqrt().item()
    assert error <= ratio * max(size, 1e-6), f"{name}: {error / max(size, 1e-6):.2e} above {ratio:.0e}"


def assert_gradients_close(
    fused: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    tensors: dict[str, Tensor],
    ratio: float,
    autocast: Literal["no", "forward", "both"] = "no",
) -> None:
    """Output and the gradient of every tensor: `fused` in their own type, `plain` in float64.

    autocast: to bfloat16, around the forward of `fused` as in training, or around its backward, too.
    """
    own = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast != "no"):
        out = fused(**own)
    truth = plain(**wide)
    assert_close("out", truth, out, ratio)
    # of one sign, so that sums over it do not cancel and drown an error in rounding
    above = torch.linspace(0.5, 1.5, out.numel()).reshape(out.shape).to(out.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast == "both"):
        grads = torch.autograd.grad(out, list(own.values()), above)
    truths = torch.autograd.grad(truth, list(wide.values()), above.double())
    for name, a, b in zip(own, truths, grads, strict=True):
        if a.abs().max() > 1e-9:
            # the temperature's is one number out of many that cancel
            assert_close(f"d{name}", a, b, ratio * (30 if name == "temperature" else 2))
        else:
            # rounding of what cancels; the temperature's is the sum of all of it
            most = 0.2 if name == "temperature" else 2e-2
            assert b.abs().max() < most, f"d{name}: {b.abs().max()} where it is zero"


def assert_equals_reference(
    run: Callable[..., Tensor], case: str, backend: str, tensors: dict[str, Tensor], mask: Tensor | None, ratio: float
) -> None:
    """A case of `window_cases` or `routed_cases`, its output and gradients, on a backend and by the reference."""
    assert_gradients_close(
        lambda **t: run(case, **t, mask=mask, backend=backend),
        lambda **t: run(case, **t, mask=mask, backend="reference"),
        tensors,
        ratio,
    )


def operands(
    size: tuple[int, int, int, int, int, int], dtype: torch.dtype, *, seed: int = 0, permuted: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(batch, heads, queries, keys, D, E) -> q, k, v and a mask with padding in every entry and, from two entries on,
    a last one without any real key. Permuted: as projections give them, [B, N, H, D] in memory.
    """
    b, h, n, p, d, e = size
    made = torch.Generator().manual_seed(seed + sum(size))

    def draw(length: int, width: int) -> Tensor:
        if permuted:
            return torch.randn(b, length, h, width, generator=made, dtype=torch.float64).to(dtype).transpose(1, 2)
        return torch.randn(b, h, length, width, generator=made, dtype=torch.float64).to(dtype)

    mask = torch.rand(b, p, generator=made) > 0.3
    mask[:, 0] = True
    if b > 1:
        mask[-1] = False
    return draw(n, d), draw(p, d), draw(p, e), mask


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN and lies between guards of NaN: what a kernel does not write, or writes beside, is seen."""
    bands: list[tuple[Tensor, Tensor]] = []
    empty = torch.empty

    def guarded(shape: tuple[int, ...], stride: tuple[int, ...] | None, dtype: torch.dtype) -> Tensor:
        numel = 1
        for n in shape:
            numel *= n
        if not dtype.is_floating_point or numel == 0:
            return empty(shape, dtype=dtype)
        whole = torch.full((numel + 2 * _GUARD,), float("nan"), dtype=dtype)
        bands.append((whole[:_GUARD], whole[_GUARD + numel :]))
        inner = whole[_GUARD : _GUARD + numel]
        return inner.view(shape) if stride is None else inner.as_strided(shape, stride, _GUARD)

    def plain(tensor: Any, device: Any) -> bool:
        return type(tensor) is Tensor and str(device or tensor.device) == "cpu"

    def fake_empty(*shape: Any, dtype: torch.dtype | None = None, device: Any = None, **rest: Any) -> Tensor:
        if rest or str(device or "cpu") != "cpu":
            return empty(*shape, dtype=dtype, device=device, **rest)
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return guarded(shape, None, dtype or torch.get_default_dtype())

    def fake_like(tensor: Tensor, *, dtype: torch.dtype | None = None, device: Any = None, **rest: Any) -> Tensor:
        if not plain(tensor, device) or rest or not tensor.is_contiguous():
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype or tensor.dtype, device=tensor.device)
        return guarded(tuple(tensor.shape), None, dtype or tensor.dtype)

    original = Tensor.new_empty

    def fake_new(tensor: Tensor, *shape: Any, dtype: torch.dtype | None = None, device: Any = None, **rest: Any) -> Any:
        if not plain(tensor, device) or rest:
            return original(tensor, *shape, dtype=dtype, device=device, **rest)
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return guarded(shape, None, dtype or tensor.dtype)

    strided = torch.empty_strided

    def fake_strided(shape: Any, stride: Any, *, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        made = strided(shape, stride, dtype=dtype, device=device)
        return made.fill_(float("nan")) if type(made) is Tensor and made.is_floating_point() else made

    with (
        patch.object(torch, "empty", fake_empty),
        patch.object(torch, "empty_like", fake_like),
        patch.object(torch, "empty_strided", fake_strided),
        patch.object(Tensor, "new_empty", fake_new),
    ):
        yield
    assert bands, "nothing was allocated: the poison did not take hold"
    for before, after in bands:
        assert torch.isnan(before).all(), "something was written before an output"
        assert torch.isnan(after).all(), "something was written behind an output"
