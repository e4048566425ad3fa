"""Every configuration of an operator on a GPU against float64: what no compiler and no interpreter can show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from gpu_problems import Call, Problem, calls_of, problem_of
from torch import Tensor

from petground.kernels._triton.runtime import architecture, capture
from petground.kernels.aot_build import key_of, keyed

__all__ = ["LIMITS", "check_operator", "compare", "deviations", "faults_of", "outcome"]

# RMS error over RMS of the truth. float32: products in 3xTF32; 16 bits: products and stores round once each.
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
GRADIENT = 2.0  # times the limit
WORST = 8.0  # times the limit, for any single row: a few wrong rows among many pass an RMS
NOTHING = 2e-2  # the most where the truth is zero


def deviations(truth: Tensor, found: Tensor) -> tuple[float, float]:
    """RMS error as a share of the truth's RMS, and of the worst row (last axis) as a share of the larger of its own
    RMS and the whole's. Infinite where something is not finite; absolute where the truth is zero.
    """
    a, b = truth.detach().double(), found.detach().double()
    if a.shape != b.shape or not bool(torch.isfinite(b).all()):
        return float("inf"), float("inf")
    if a.numel() == 0:
        return 0.0, 0.0
    whole = a.square().mean().sqrt()
    if whole < 1e-9:
        most = (a - b).abs().max().item()
        return most, most
    rows, wrong = (one.square().mean(-1).sqrt() if one.ndim > 1 else one.abs() for one in (a, a - b))
    return ((a - b).square().mean().sqrt() / whole).item(), (wrong / rows.clamp_min(whole)).max().item()


def outcome(function: Callable[..., Tensor], tensors: Mapping[str, Tensor], *, wide: bool) -> dict[str, Tensor]:
    """{"out": ..., "dNAME": gradient of each tensor}; `wide`: in float64. The gradient given to it is of one sign, so
    that sums over it do not cancel and drown an error in rounding.
    """
    own = {name: (t.double() if wide else t.clone()).detach().requires_grad_() for name, t in tensors.items()}
    out = function(**own)
    above = torch.empty_like(out)
    above.copy_(torch.linspace(0.5, 1.5, out.numel(), device=out.device).reshape(out.shape))
    grads = torch.autograd.grad(out, list(own.values()), above)
    return {"out": out.detach()} | {f"d{name}": grad for name, grad in zip(own, grads, strict=True)}


def faults_of(truth: Mapping[str, Tensor], found: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, str]:
    """{output or gradient: what is wrong with it}."""
    wrong = {}
    for name, right in truth.items():
        limit = LIMITS[dtype] * (1.0 if name == "out" else GRADIENT)
        if right.numel() and right.abs().max() < 1e-9:
            limit = NOTHING / WORST
        overall, worst = deviations(right, found[name])
        # `not <=`: also what is no number
        if not (overall <= limit and worst <= WORST * limit):
            wrong[name] = f"error {overall:.1e}, of a row {worst:.1e}, above {limit:.0e}"
    return wrong


def compare(problem: Problem) -> tuple[float, dict[str, str]]:
    """(largest RMS error of output and gradients, faults)."""
    dtype = next(iter(problem.tensors.values())).dtype
    if problem.exact:
        same = torch.equal(problem.fused(**problem.tensors), problem.plain(**problem.tensors))
        return 0.0, {} if same else {"out": "another choice"}
    truth = outcome(problem.plain, problem.tensors, wide=True)
    found = outcome(problem.fused, problem.tensors, wide=False)
    worst = max(deviations(truth[name], found[name])[0] for name in truth)
    return worst, faults_of(truth, found, dtype)


def check_operator(
    operator: str, device: torch.device, *, backend: str = "triton", calls: Sequence[Call] | None = None
) -> dict[str, Any]:
    """Compares every call of `cases()`, and counts which of the configurations that are compiled ahead were run."""
    arch = architecture(device)
    every = set(keyed(arch, (f"petground.kernels.{operator}.triton",)))
    ran: set[str] = set()
    compared, largest, faults = 0, {}, {}
    for number, call in enumerate(calls_of(operator) if calls is None else calls):
        problem = problem_of(call, device, backend=backend, seed=number)
        kind = str(next(iter(problem.tensors.values())).dtype).removeprefix("torch.")
        name = f"{call.case}, {call.launcher}"
        try:
            worst, wrong = compare(problem)
            largest[kind] = max(largest.get(kind, 0.0), worst)
            ran |= _keys(problem, arch)
        except Exception as error:  # a kernel that does not start is a finding as well; the others are still run
            wrong = {"run": f"{type(error).__name__}: {str(error)[:200]}"}
        compared += 1
        if wrong:
            faults[name] = wrong
        del problem
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {
        "calls": compared,
        "configurations": len(every),
        "configurations_run": len(every & ran),
        "largest_error": {kind: float(f"{worst:.2g}") for kind, worst in largest.items()},
        "faults": faults,
    }


def _keys(problem: Problem, arch: int) -> set[str]:
    """What the call launches, forward and backward; nothing runs."""
    with capture(arch) as recorded:
        if problem.exact:
            problem.fused(**problem.tensors)
        else:
            outcome(problem.fused, problem.tensors, wide=False)
    return {key_of(one, arch) for one in recorded}
