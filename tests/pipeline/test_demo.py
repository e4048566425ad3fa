"""The demo's own part: which commands it runs, that done steps are not run again, and what a failed one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from petground.labeling.errors import PetgroundError
from petground.pipeline import cli
from petground.pipeline.commands import demo as module
from petground.pipeline.schemas import write_table
from petground.pipeline.usage import parser_of


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the steps that were run; each leaves only what the demo itself reads."""
    names: list[str] = []

    def run(console: Console, step: module.Step, log: Path) -> tuple[float, float]:
        names.append(step.name)
        out = log.parents[1]
        if step.name in ("label", "label_test"):
            folder = out / ("work" if step.name == "label" else "work_test")
            write_table(folder / "exams.parquet", "exams", [{"exam_id": "e", "status": "ok"}])
        if step.name == "train":
            (out / "run" / "checkpoints").mkdir(parents=True)
        if step.name == "evaluate":
            (out / "evaluation").mkdir(parents=True, exist_ok=True)
            (out / "evaluation" / "metrics.json").write_text('{"f1": {"right": 0.8, "shuffled": 0.1, "empty": 0.2}}')
        return 2.0, 0.5

    figures = {"coverage": 1.0, "located": 1.0, "median_dice": 0.9, "findings": 3}
    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "_write_report", lambda *_: None)
    monkeypatch.setattr(module, "score_labels", lambda pairs: figures)
    return names


def test_every_step_is_a_command_that_a_user_can_type(tmp_path: Path) -> None:
    for step in module._steps(tmp_path, 100, 15):
        name, rest = cli._named(list(step.arguments))
        command = cli.COMMANDS[name]
        if name not in cli.RAW:
            parser_of(name, cli._load(command), command.positional).parse_args(rest)


def test_done_steps_are_not_run_again(ran: list[str], tmp_path: Path) -> None:
    assert module.demo(tmp_path) == 0
    every = [step.name for step in module._steps(tmp_path, 100, 15)]
    assert ran == every
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["f1"] == {"right": 0.8, "shuffled": 0.1, "empty": 0.2}
    assert {"coverage", "located", "median_dice"} <= set(summary["labels"])
    assert summary["seconds"] >= 2.0 * len(every)
    assert summary["peak_gib"] == 0.5
    ran.clear()
    assert module.demo(tmp_path) == 0
    assert ran == []
    marks: dict[str, Any] = json.loads((tmp_path / "steps.json").read_text())
    del marks["evaluate"]["key"]  # as after Ctrl-C in it
    (tmp_path / "steps.json").write_text(json.dumps(marks))
    assert module.demo(tmp_path) == 0
    assert ran == ["evaluate"]
    ran.clear()
    assert module.demo(tmp_path, exams=50) == 0
    assert ran == every, "other exams change everything that follows"


def test_an_interrupted_training_goes_on_but_not_with_another_code(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.demo(tmp_path)
    marks = json.loads((tmp_path / "steps.json").read_text())
    del marks["train"]["key"]
    (tmp_path / "steps.json").write_text(json.dumps(marks))
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_text("half way")
    seen: list[bool] = []
    real = module._run

    def run(console: Console, step: module.Step, log: Path) -> tuple[float, float]:
        if step.name == "train":
            seen.append((tmp_path / "run" / "checkpoints" / "last.ckpt").exists())
            return 1.0, 0.1
        return real(console, step, log)

    monkeypatch.setattr(module, "_run", run)
    module.demo(tmp_path)
    assert seen == [True], "the checkpoint is there to go on from"
    monkeypatch.setattr(module, "source_hash", lambda *_: "other code")
    module.demo(tmp_path)
    assert seen == [True, False]


def test_a_step_that_fails_names_its_log(tmp_path: Path) -> None:
    step = module.Step("broken", "a wrong flag", ("label", "--no-such-flag"))
    with pytest.raises(PetgroundError, match=r"step 'broken' failed with exit code 2") as caught:
        module._run(Console(quiet=True), step, tmp_path / "logs" / "broken.log")
    assert "broken.log" in str(caught.value)
    assert "no-such-flag" in (tmp_path / "logs" / "broken.log").read_text()
