"""petground commands as steps of a long benchmark: each runs once; what is out of time goes on with the next call."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Steps", "from_environment"]


@dataclass(frozen=True)
class Steps:
    """Commands whose marks and logs lie in `folder`; none starts or goes on after `until` (of time.monotonic)."""

    folder: Path
    until: float

    def run(self, step: str, *arguments: str, after: str | None = None) -> None:
        """`petground ARGUMENTS`, unless done, out of time, or `after` is not done. Ends the process if it fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.done(step) or time.monotonic() >= self.until or (after is not None and not self.done(after)):
            return
        sys.stderr.write(f"{step} ...\n")
        with (self.folder / f"{step}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "petground.pipeline.cli", *arguments], stdout=log, stderr=log
            )
            try:
                code = process.wait(timeout=max(1.0, self.until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                sys.stderr.write(f"{step}: out of time, goes on with the next call\n")
                return
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
        if code != 0:
            sys.exit(f"{step} failed with exit code {code}: see {self.folder / step}.log")
        (self.folder / f"{step}.done").write_text(" ".join(arguments), encoding="utf-8")

    def done(self, step: str) -> bool:
        return (self.folder / f"{step}.done").is_file()

    def phantoms(self, part: str, exams: int, seed: int) -> None:
        """Mirrored exams in folder/PART and their labels in folder/work_PART."""
        made = self.folder / part
        self.run(f"phantom_{part}", "phantom", "--mirrored", f"--exams={exams}", f"--seed={seed}", f"--out={made}")
        self.run(f"label_{part}", "label", f"--reports={made}/reports.csv", f"--exams={made}/exams",
                 f"--out={self.folder}/work_{part}", after=f"phantom_{part}")  # fmt: skip

    def train_and_evaluate(self, name: str, *settings: str, checkpoint: str = "last") -> None:
        """Trains on work_train into folder/NAME and evaluates on work_test against the truth of folder/test."""
        run = self.folder / name
        self.run(f"fit_{name}", "train", "fit", *settings, f"--data.work={self.folder}/work_train",
                 f"--run_dir={run}", "--ckpt_path=last", after="label_train")  # fmt: skip
        self.run(f"evaluate_{name}", "evaluate", f"--labels={self.folder}/work_test", f"--truth={self.folder}/test",
                 f"--checkpoint={run}/checkpoints/{checkpoint}.ckpt", f"--out={run}/evaluation",
                 after=f"fit_{name}")  # fmt: skip


def from_environment(folder: Path) -> Steps:
    """In PETGROUND_BENCH_FOLDER (`folder`), for PETGROUND_BENCH_MINUTES (170)."""
    minutes = float(os.environ.get("PETGROUND_BENCH_MINUTES", "170"))
    return Steps(Path(os.environ.get("PETGROUND_BENCH_FOLDER", folder)), time.monotonic() + 60.0 * minutes)
