"""A case that crashes, hangs or raises is a row; the others finish."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petground.labeling.errors import ConfigError
from petground.pipeline.executors import Outcome, executor


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    function: Callable[[str], str] = importlib.import_module("executor_cases").work
    return function


def run(function: Callable[[str], str], cases: list[tuple[str, tuple[str]]], **options: Any) -> list[Outcome]:
    with executor(**options) as run_cases:
        return list(run_cases(function, cases))


def test_every_case_gets_an_outcome(work: Callable[[str], str]) -> None:
    kinds = ["a", "crash", "b", "hang", "refuse", "break", "full", "c", "d"]
    cases = [(kind, (kind,)) for kind in kinds]
    outcomes = {o.case: o for o in run(work, cases, workers=2, timeout_s=3)}
    assert set(outcomes) == set(kinds)
    assert [outcomes[k].value for k in "abcd"] == ["A", "B", "C", "D"]
    reasons = {k: outcomes[k].reason for k in kinds if outcomes[k].reason}
    assert reasons == {
        "crash": "crashed",
        "hang": "timed_out",
        "refuse": "no_suv",
        "break": "failed",
        "full": "disk_full",
    }
    assert "PatientWeight" in outcomes["refuse"].detail
    assert "site table" in outcomes["refuse"].detail


def test_the_text_of_a_foreign_error_is_not_kept(work: Callable[[str], str]) -> None:
    (outcome,) = run(work, [("x", ("break",))], workers=1)
    assert outcome == Outcome("x", reason="failed", detail=outcome.detail)
    assert "Smith" not in outcome.detail
    assert outcome.detail.startswith("ValueError at executor_cases.py:")


def test_no_cases_and_no_workers(work: Callable[[str], str]) -> None:
    assert run(work, [], workers=2) == []
    with pytest.raises(ConfigError, match="workers"):
        run(work, [("a", ("a",))], workers=0)


def test_dask_gives_the_same_rows(work: Callable[[str], str]) -> None:
    pytest.importorskip("distributed")
    outcomes = {o.case: o for o in run(work, [(k, (k,)) for k in ("a", "break", "b")], engine="dask", workers=1)}
    assert outcomes["a"].value == "A"
    assert outcomes["b"].value == "B"
    assert outcomes["break"].reason == "failed"
