"""A case that crashes, hangs, eats memory or raises is a row; the others finish. On both engines alike."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from petground.labeling.errors import ConfigError
from petground.pipeline.executors import Outcome, executor


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("executor_cases")


def run(function: Callable[..., Any], todo: Iterable[tuple[str, tuple[Any, ...]]], **options: Any) -> list[Outcome]:
    with executor(**options) as run_cases:
        return list(run_cases(function, todo))


def kinds(*names: str) -> list[tuple[str, tuple[str]]]:
    return [(name, (name,)) for name in names]


ENGINES = [
    pytest.param({"engine": "local", "workers": 2}, id="local"),
    pytest.param({"engine": "dask", "workers": 2}, id="dask"),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_case_gets_an_outcome(cases: ModuleType, engine: dict[str, Any]) -> None:
    if engine["engine"] == "dask":
        pytest.importorskip("distributed")
    names = ("a", "crash", "b", "segfault", "loop", "refuse", "break", "full", "unpicklable", "c", "d")
    outcomes = {o.case: o for o in run(cases.work, kinds(*names), timeout_s=2, **engine)}
    assert set(outcomes) == set(names)
    assert [outcomes[k].value for k in "abcd"] == ["A", "B", "C", "D"]
    assert {k: outcomes[k].reason for k in names if outcomes[k].reason} == {
        "crash": "crashed",
        "segfault": "crashed",
        "loop": "timed_out",
        "refuse": "no_suv",
        "break": "failed",
        "full": "disk_full",
        "unpicklable": "failed",
    }
    assert "exit code 137" in outcomes["crash"].detail
    assert "SIGSEGV" in outcomes["segfault"].detail
    assert "time limit of one case (2 s)" in outcomes["loop"].detail
    assert "GiB" in outcomes["loop"].detail
    assert "PatientWeight" in outcomes["refuse"].detail
    assert "site table" in outcomes["refuse"].detail


def test_a_memory_eater_ends_alone_and_its_size_is_told(cases: ModuleType) -> None:
    todo = [("big", (3.0,)), ("small", (0.1,))]
    outcomes = {o.case: o for o in run(cases.eat, todo, workers=1, memory_gib=1.0)}
    assert outcomes["big"].reason == "out_of_memory"
    assert outcomes["small"].value == 1


def test_the_text_of_a_foreign_error_is_not_kept(cases: ModuleType) -> None:
    (outcome,) = run(cases.work, [("x", ("break",))], workers=1)
    assert outcome == Outcome("x", reason="failed", detail=outcome.detail)
    assert "Smith" not in outcome.detail
    assert outcome.detail.startswith("ValueError at executor_cases.py:")


def test_no_cases(cases: ModuleType) -> None:
    assert run(cases.work, [], workers=2) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers"),
        ({"timeout_s": 0}, "time limit"),
        ({"timeout_s": float("nan")}, "time limit"),
        ({"memory_gib": 0.1}, "memory-gib"),
        ({"engine": "slurm"}, "engine"),
        ({"address": "tcp://x:1"}, "address belongs to the Dask engine"),
        ({"cluster": Path("c.yaml")}, "cluster belongs to the Dask engine"),
        ({"engine": "dask", "address": "tcp://x:1", "cluster": Path("c.yaml")}, "exclude each other"),
    ],
)
def test_options_out_of_range_are_named(cases: ModuleType, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(cases.work, kinds("a"), **options)


def test_cases_are_drawn_only_as_far_as_the_workers_go(cases: ModuleType) -> None:
    drawn = 0

    def many() -> Iterator[tuple[str, tuple[str]]]:
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            yield str(number), (str(number),)

    with executor(workers=1) as run_cases:
        outcomes = run_cases(cases.work, many())
        assert next(outcomes).reason is None
        assert drawn <= 4


def test_a_process_killed_from_outside_costs_no_case(cases: ModuleType, tmp_path: Path) -> None:
    """Once while it works, and once while it waits for work: a shared pool would be broken by either."""
    with executor(workers=1) as run_cases:
        killer = threading.Thread(target=_kill_when_noted, args=(tmp_path / "a.pids",))
        killer.start()
        (first,) = run_cases(cases.slow, [("a", ("a", str(tmp_path), 0.6))])
        killer.join()
        assert first.value == "a"
        pids = [int(line.split()[0]) for line in (tmp_path / "a.pids").read_text().splitlines()]
        assert len(pids) == 2, "it was run once more, in another process"
        os.kill(pids[1], signal.SIGKILL)
        (second,) = run_cases(cases.slow, [("b", ("b", str(tmp_path), 0.0))])
        assert second.value == "b"


def _kill_when_noted(note: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if note.exists() and (text := note.read_text()).endswith("\n"):
            os.kill(int(text.split()[0]), signal.SIGKILL)
            return
        time.sleep(0.02)


def test_leaving_early_leaves_no_process(cases: ModuleType) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    start = time.monotonic()
    with executor(workers=2) as run_cases:
        assert next(run_cases(cases.work, kinds("a", "hang", "hang"))).value == "A"
    assert time.monotonic() - start < 20
    assert {p.pid for p in psutil.Process().children(recursive=True)} - before == set()
