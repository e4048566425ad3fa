"""What a log file is told of long work: how far, how fast, how long still."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from petground.pipeline import progress as module
from petground.pipeline.progress import progress


def test_lines_with_pace_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    told = io.StringIO()
    with progress(Console(file=told, force_terminal=False)) as tick:
        tick("exams", 1000, 4000)  # found finished: no part of the pace
        for done in range(1001, 1061):
            now[0] += 1.0
            tick("exams", done, 4000)
        now[0] += 2940 / 2
        tick("exams", 4000, 4000)
    assert told.getvalue().splitlines() == [
        "exams: 1030 of 4000, 60/min, 50 min left",
        "exams: 1060 of 4000, 60/min, 49 min left",
        "exams: 4000 of 4000, 120/min",
    ]


def test_a_terminal_gets_a_bar_with_the_pace() -> None:
    told = io.StringIO()
    with progress(Console(file=told, force_terminal=True, width=120)) as tick:
        for done in range(1, 11):
            tick("exams", done, 10)
    assert "10/10" in told.getvalue()
    assert "/min" in told.getvalue()
