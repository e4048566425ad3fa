"""The GPU benchmark's comparison with float64, on small calls in the interpreter: it passes what is right, and sees
what is wrong. (On a GPU the calls are those of the operators' `cases()`.)"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from petground.kernels.routed_attention.regions import Regions
from petground.kernels.window_attention.pattern import Pattern

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
gpu_check = importlib.import_module("gpu_check")
gpu_problems = importlib.import_module("gpu_problems")
CPU = torch.device("cpu")


def _rows(count: int, dtype: torch.dtype = torch.float32, batch: int = 2) -> torch.Tensor:
    return torch.empty(batch, count, 2, 16, dtype=dtype, device="meta").transpose(1, 2)


def _small() -> dict[str, dict[str, Any]]:
    """Arguments by launcher, as `calls_of` gives them but small."""
    long = {"dtype": torch.long, "device": "meta"}
    mask, scale = torch.empty(2, 24, dtype=torch.bool, device="meta"), torch.empty(2, device="meta")
    attention = {"q": _rows(40), "k": _rows(24), "v": _rows(24), "mask": mask, "scale": scale}
    kind = {"activation": "softmax", "shift": 0.0}
    grid = {"q": _rows(24), "k": _rows(24), "v": _rows(24), "mask": mask, "scale": scale}
    pattern = Pattern.neighbours((2, 3, 4), (1, 3, 3), (1, 1, 1), slide=True)
    linear = {name: grid[name] for name in ("q", "k", "v", "mask")}
    tokens = torch.empty(2, 32, 24, device="meta").transpose(1, 2)
    scores = {"scores": torch.empty(2, 24, device="meta"), "mask": mask, "k": 5, "size": 5, "places": True}
    return {
        "cross_attention.forward_triton": attention | kind | {
            "x": torch.empty(2, 2, 16, 40, device="meta").transpose(2, 3), "gate": "residual_tanh"},
        "text_to_voxel.forward_triton": attention | kind,
        "window_attention.forward_triton": grid | {"bias": torch.empty(2, 25, device="meta"), "pattern": pattern},
        "routed_attention.forward_triton": grid | {
            "table": torch.empty(2, 1, 4, 2, **long), "regions": Regions((2, 3, 4), (2, 2, 2))},
        "linear_attention.forward_triton": linear | {
            "log_decay": torch.empty(2, device="meta"), "causal": False, "ones": True},
        "agent_attention.forward_triton": {name: attention[name] for name in ("q", "k", "v", "mask")} | {
            "bias": torch.empty(1, 2, 40, 24, device="meta")},
        "token_merge.gather_triton": {"tokens": tokens, "places": torch.empty(2, 24, **long)[:, ::4]},
        "token_merge.scatter_triton": {
            "values": None, "places": torch.empty(2, 6, **long), "count": 24, "fill": tokens,
            "like": torch.empty(2, 6, 32, device="meta")},
        "token_merge.merge_triton": {
            "tokens": tokens, "assignment": torch.empty(2, 24, **long), "weights": torch.empty(2, 24, device="meta"),
            "groups": 5},
        "topk.topk_triton": scores | {"wanted": torch.empty(2, **long)},
    }  # fmt: skip


def _call(name: str) -> Any:
    operator, launcher = name.split(".")
    return gpu_problems.Call(operator, launcher, f"small {operator}", _small()[name])


def test_there_is_a_comparison_for_every_operator() -> None:
    modules = importlib.import_module("petground.kernels.aot_build").MODULES
    assert {module.split(".")[2] for module in modules} == set(gpu_problems.ADAPTERS)
    assert {f"{o}.{name}" for o, each in gpu_problems.ADAPTERS.items() for name in each} == set(_small())


@pytest.mark.parametrize("name", sorted(_small()))
def test_a_call_is_compared_with_float64(name: str) -> None:
    problem = gpu_problems.problem_of(_call(name), CPU)
    if problem.exact:
        assert gpu_check.compare(problem) == (0.0, {})
        other = replace(problem, fused=lambda scores: problem.fused(scores=-scores))
        assert gpu_check.compare(other)[1] == {"out": "another choice"}
        return
    truth = gpu_check.outcome(problem.plain, problem.tensors, wide=True)
    found = gpu_check.outcome(problem.fused, problem.tensors, wide=False)
    assert gpu_check.faults_of(truth, found, torch.float32) == {}
    # one row of dozens, and by little
    found["out"] = found["out"].clone()
    found["out"][0, -1] *= 1.001
    assert set(gpu_check.faults_of(truth, found, torch.float32)) == {"out"}


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        (n, g)
        for n, a in _small().items()
        if "scale" in a
        for g in (("tanh", "residual_tanh") if "gate" in a else ("none",))
    ],
)
def test_the_temperatures_gradient_does_not_cancel_and_has_the_limit_of_all(name: str, gate: str) -> None:
    call = _call(name)
    problem = gpu_problems.problem_of(replace(call, arguments=call.arguments | {"gate": gate}), CPU)
    truth = gpu_check.outcome(problem.plain, problem.tensors, wide=True)
    shares = (problem.tensors["q"].double() * truth["dq"]).sum(-1)  # of each query in the scale's gradient, times scale
    assert bool((shares.sum((0, 2)).abs() > 0.8 * shares.abs().sum((0, 2))).all()), "one number out of many that cancel"
    found = truth | {"dscale": truth["dscale"] * 1.05}
    assert set(gpu_check.faults_of(truth, found, torch.bfloat16)) == {"dscale"}
    wrong = replace(
        problem, fused=lambda scale, **rest: problem.plain(scale=scale * 1.05 - scale.detach() * 0.05, **rest)
    )
    assert gpu_check.compare(wrong)[0] == pytest.approx(0.05, rel=1e-2), "left out of the largest error"


def test_a_wrong_gradient_is_found_where_the_output_is_right() -> None:
    problem = gpu_problems.problem_of(_call("text_to_voxel.forward_triton"), CPU)
    wrong = replace(problem, fused=lambda q, **rest: problem.fused(q=q * 1.01 - q.detach() * 0.01, **rest))
    assert set(gpu_check.compare(wrong)[1]) == {"dq"}


def test_an_operator_is_summed_up_and_one_that_does_not_run_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    # interpreted kernels have no keys
    monkeypatch.setattr(gpu_check, "keyed", lambda arch, modules: {"one": (), "other": ()})
    monkeypatch.setattr(gpu_check, "_keys", lambda problem, arch: {"one", "of no case"})
    good, other = _call("topk.topk_triton"), _call("topk.topk_triton")
    broken = replace(other, case="broken", arguments=other.arguments | {"size": -1})
    found = gpu_check.check_operator("topk", CPU, calls=[good, broken])
    assert found["calls"] == 2
    assert (found["configurations_run"], found["configurations"]) == (1, 2)
    assert list(found["faults"]) == ["broken, topk_triton"]
    assert list(found["largest_error"]) == ["float32"]


def test_the_real_calls_are_those_that_are_compiled_ahead() -> None:
    calls = gpu_problems.calls_of("token_merge")
    assert {call.launcher for call in calls} == set(gpu_problems.ADAPTERS["token_merge"])
    assert len({call.case for call in calls}) == 6
    assert {call.arguments["tokens"].dtype for call in calls if call.launcher == "merge_triton"} == {
        torch.bfloat16, torch.float16, torch.float32,
    }  # fmt: skip
