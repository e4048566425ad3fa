"""petground commands as steps of a long benchmark: each runs once; what is out of time goes on with the next call.

A step's mark (STEP.json) holds hashes of all that decides what it makes: its arguments, the configs they name, the code
that the command imports, and what the steps before it made. A step whose mark tells of something else runs anew, from
the start, and says why; with the same mark it is not run again, and a training that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sources import hashes

from petground.pipeline.files import read_json, write_json
from petground.pipeline.stage import content_hash

__all__ = ["Steps", "from_environment"]

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "train"
COMMAND = (sys.executable, "-P", "-m", "petground.pipeline.cli")
CODE = {
    "phantom": ("petground.pipeline.commands.phantom", "petground.pipeline.phantom"),
    "label": ("petground.pipeline.commands.label", "petground.labeling"),  # its rules are no modules
    "train": ("petground.training.cli",),
    "evaluate": ("petground.training.evaluate",),
}
NETWORKS = ("train", "evaluate")  # what they give depends on PyTorch's release, too


@dataclass(frozen=True)
class Steps:
    """Commands whose marks and logs lie in `folder`; none starts or goes on after `until` (of time.monotonic)."""

    folder: Path
    until: float
    _wanted: dict[str, dict[str, str]] = field(default_factory=dict)  # of every step of this call: what decides

    def run(
        self,
        step: str,
        *arguments: str,
        after: Sequence[str] = (),
        begins_in: Path | None = None,
        made: Callable[[], str] | None = None,
        run: bool = True,
    ) -> None:
        """`petground ARGUMENTS`, unless done, out of time, or a step of `after` is not done.

        begins_in: folder that a stopped step goes on from; taken away when the step was begun by something else. made:
        digest of what came out, for the steps after it; what decided the step by default. run: False leaves the step
        as it is, and `done` tells of it all the same. Ends the process if the command fails.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not all(self.done(one) for one in after):
            return
        wanted = {
            "arguments": content_hash(arguments),
            **_configs(arguments),
            **{f"code of {room}": digest for room, digest in hashes(*CODE[arguments[0]]).items()},
            **({"PyTorch": version("torch")} if arguments[0] in NETWORKS else {}),
            **{f"what {one} made": self._mark(one)["made"] for one in after},
        }
        self._wanted[step] = wanted
        if not run or self.done(step) or time.monotonic() >= self.until:
            return
        mark = self._mark(step)
        before = mark.get("of", {})
        if mark and before != wanted:
            changed = [name for name in {**before, **wanted} if before.get(name) != wanted.get(name)]
            sys.stderr.write(f"{step} runs anew, for there changed: {', '.join(changed)}\n")
            mark = {}
        if not mark and begins_in is not None and begins_in.exists():
            sys.stderr.write(f"{step} begins anew: {begins_in} is taken away\n")
            shutil.rmtree(begins_in)
        mark = {"of": wanted, "seconds": mark.get("seconds", 0.0), "done": False}
        self._write(step, mark)
        sys.stderr.write(f"{step} ...\n")
        start = time.monotonic()
        try:
            code = self._wait(step, arguments)
        finally:
            mark["seconds"] = round(mark["seconds"] + time.monotonic() - start, 1)
            self._write(step, mark)
        if code is None:
            sys.stderr.write(f"{step}: out of time, goes on with the next call\n")
        elif code != 0:
            sys.exit(f"{step} failed with exit code {code}: see {self.folder / step}.log")
        else:
            self._write(step, {**mark, "done": True, "made": content_hash(wanted) if made is None else made()})

    def _wait(self, step: str, arguments: Sequence[str]) -> int | None:
        """The command's exit code; None when it was stopped for time."""
        with (self.folder / f"{step}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log)
            try:
                return process.wait(timeout=max(1.0, self.until - time.monotonic()))
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()

    def done(self, step: str) -> bool:
        """Whether the step was done by what would do it now; it has been named to `run` in this call."""
        mark = self._mark(step)
        return bool(mark.get("done")) and mark.get("of") == self._wanted.get(step)

    def seconds(self, step: str) -> float | None:
        """How long the step ran, over all its attempts; None before the first."""
        seconds: float | None = self._mark(step).get("seconds")
        return seconds

    def record(self, name: str) -> dict[str, Any]:
        """The run.json of the newest attempt of a training; empty where there is none."""
        found = sorted((self.folder / name).glob("version_*/run.json"), key=lambda path: int(path.parent.name[8:]))
        return read_json(found[-1]) if found else {}

    def phantoms(self, part: str, exams: int, seed: int) -> None:
        """Mirrored exams in folder/PART and their labels in folder/work_PART."""
        made, work = self.folder / part, self.folder / f"work_{part}"
        self.run(f"phantom_{part}", "phantom", "--mirrored", f"--exams={exams}", f"--seed={seed}", f"--out={made}")
        self.run(f"label_{part}", "label", f"--reports={made}/reports.csv", f"--exams={made}/exams", f"--out={work}",
                 after=(f"phantom_{part}",), made=lambda: _labels(work))  # fmt: skip

    def train_and_evaluate(
        self, name: str, *settings: str, checkpoint: str = "last", asked: Sequence[str] = (), run: bool = True
    ) -> None:
        """Trains on work_train into folder/NAME and evaluates on work_test against the truth of folder/test.

        asked: further options of `petground evaluate`.
        """
        at = self.folder / name
        self.run(f"fit_{name}", "train", "fit", *settings, f"--data.work={self.folder}/work_train", f"--run_dir={at}",
                 "--ckpt_path=last", after=("label_train",), begins_in=at, run=run)  # fmt: skip
        self.run(f"evaluate_{name}", "evaluate", f"--labels={self.folder}/work_test", f"--truth={self.folder}/test",
                 f"--checkpoint={at}/checkpoints/{checkpoint}.ckpt", f"--out={at}/evaluation", *asked,
                 after=(f"fit_{name}", "phantom_test", "label_test"), run=run)  # fmt: skip

    def metrics(self, name: str) -> dict[str, Any] | None:
        """metrics.json of a model that is trained and evaluated; None of one that is not yet."""
        return read_json(self.folder / name / "evaluation" / "metrics.json") if self.done(f"evaluate_{name}") else None

    def _mark(self, step: str) -> dict[str, Any]:
        return read_json(self.folder / f"{step}.json")

    def _write(self, step: str, mark: dict[str, Any]) -> None:
        write_json(self.folder / f"{step}.json", mark)


def from_environment(folder: Path) -> Steps:
    """In PETGROUND_BENCH_FOLDER (`folder`), for PETGROUND_BENCH_MINUTES (170)."""
    minutes = float(os.environ.get("PETGROUND_BENCH_MINUTES", "170"))
    return Steps(Path(os.environ.get("PETGROUND_BENCH_FOLDER", folder)), time.monotonic() + 60.0 * minutes)


def _configs(arguments: Sequence[str]) -> dict[str, str]:
    """{name: digest} of the configs that the arguments name."""
    names = [word.removeprefix("--config=") for word in arguments if word.startswith("--config=")]
    files = {name: Path(name) if Path(name).is_file() else CONFIGS / f"{name}.yaml" for name in names}
    return {f"config {name}": hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in files.items()}


def _labels(work: Path) -> str:
    """Digest of what a training or an evaluation reads of WORK: tables, masks, and the images by their records."""
    digest = hashlib.sha256()
    for pattern in ("*.parquet", "labels/*/*.nii.gz", "exams/*/stage.json"):
        for file in sorted(work.glob(pattern)):
            content = json.dumps(read_json(file)["files"]).encode() if file.suffix == ".json" else file.read_bytes()
            digest.update(f"{file.relative_to(work)}\0".encode() + content)
    return digest.hexdigest()[:32]
