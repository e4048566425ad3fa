"""Whatever is killed, and whenever: the next run goes on and gives the tables of a run that nothing happened to."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from petground.labeling.site import Site
from petground.pipeline import label_run
from petground.pipeline.executors import executor
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.reports import open_export

NAMES = [f"e{number:02d}" for number in range(6)]


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("small_exams"), importlib.import_module("executor_cases")


def in_processes(export: tuple[Path, Path], out: Path, **options: Any) -> dict[str, Any]:
    with executor(workers=2, **options) as run:
        return run_labels(LabelRun(open_export(export[0]), export[1], out, Site(), run))


def command(export: tuple[Path, Path], out: Path) -> list[str]:
    return ["label", "--reports", str(export[0]), "--exams", str(export[1]), "--out", str(out), "--workers", "2"]


def start(words: list[str], cwd: Path) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *words], start_new_session=True, cwd=cwd, **quiet)  # type: ignore[call-overload,no-any-return]


def wait_for(ready: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def killed_at_random(helpers: Any, tmp_path: Path, kills: int, seed: int) -> None:
    export = helpers[0].archive(tmp_path, NAMES)
    in_processes(export, tmp_path / "whole")
    out, draw = tmp_path / "killed", random.Random(seed)
    for _ in range(kills):
        process = start(["-m", "petground.pipeline.cli", *command(export, out)], tmp_path)
        done = len(list(out.glob("*/*/stage.json")))
        # Starting takes seconds, the work itself hardly one: killed somewhere after the first result.
        wait_for(lambda process=process, done=done: process.poll() is not None or _more(out, done))  # type: ignore[misc]
        time.sleep(draw.uniform(0.0, 0.4))
        workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        os.kill(process.pid, signal.SIGKILL)  # the command alone: its workers must not write on
        process.wait()
        psutil.wait_procs(workers, timeout=5)
        assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    in_processes(export, out)
    assert helpers[0].tables(out) == helpers[0].tables(tmp_path / "whole")
    assert not list(out.rglob(".*.part")), "nothing half-written is left"


def _more(out: Path, done: int) -> bool:
    return len(list(out.glob("*/*/stage.json"))) > done or (out / "labels.parquet").exists()


def test_killed_at_a_random_time(helpers: Any, tmp_path: Path) -> None:
    killed_at_random(helpers, tmp_path, kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_killed_at_many_random_times(helpers: Any, tmp_path: Path, seed: int) -> None:
    killed_at_random(helpers, tmp_path, kills=4, seed=seed)


def test_killed_between_one_table_and_the_next(helpers: Any, tmp_path: Path) -> None:
    export = helpers[0].archive(tmp_path, NAMES[:2])
    in_processes(export, tmp_path / "whole")
    out = tmp_path / "killed"
    script = f"""
        import os, signal, sys
        from petground.pipeline import cli, table_stream
        class Killer:
            count = 0
            def replace(self, *names):
                self.count += 1
                if self.count == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.replace(*names)
        table_stream.os = Killer()
        cli.main({command(export, out)!r})
    """
    process = start(["-c", textwrap.dedent(script)], tmp_path)
    assert process.wait(timeout=90) == -signal.SIGKILL
    assert (out / "findings.parquet").exists()
    assert not (out / "labels.parquet").exists()
    in_processes(export, out)
    assert helpers[0].tables(out) == helpers[0].tables(tmp_path / "whole")
    assert not list(out.rglob(".*.part"))


def test_a_killed_worker_changes_nothing(helpers: Any, tmp_path: Path) -> None:
    export = helpers[0].archive(tmp_path, NAMES)
    in_processes(export, tmp_path / "whole")
    out = tmp_path / "work"
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: bool(list(out.glob("exams/*/stage.json"))))
        for child in psutil.Process().children():
            if "child_main.py" in " ".join(child.cmdline()):
                child.kill()
                killed.append(child.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    in_processes(export, out)
    killer.join()
    assert killed
    assert helpers[0].tables(out) == helpers[0].tables(tmp_path / "whole")


@pytest.fixture(params=["local", pytest.param("dask", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "dask":
        pytest.importorskip("distributed")
    return str(request.param)


def test_poisoned_exams_are_rows_and_the_rest_is_labelled(
    helpers: Any, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = helpers[0].archive(tmp_path, ["e00", "segfault", "loop", "eater", "e01"])
    monkeypatch.setattr(label_run, "exam_case", helpers[1].poisoned_exam)
    summary = in_processes(export, tmp_path / "work", engine=engine, timeout_s=15, memory_gib=1.5)
    rows = {row["exam_id"]: row for row in helpers[0].tables(tmp_path / "work")["exams"]}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "e00": None,
        "segfault": "crashed",
        "loop": "timed_out",
        "eater": "out_of_memory",
        "e01": None,
    }
    assert "SIGSEGV" in rows["segfault"]["detail"]
    assert "GiB" in rows["loop"]["detail"]
    assert summary["labels"] == 2
    monkeypatch.undo()
    again = in_processes(export, tmp_path / "work")
    assert (again["labels"], again["exams_failed"]) == (5, 0), "failures are tried again"
