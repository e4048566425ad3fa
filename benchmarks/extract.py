"""`petground extract` over 10,000 and 100,000 made-up reports: reports per second, and memory that does not grow.

Run by `python benchmarks/run.py extract`; PETGROUND_BENCH_REPORTS=1000,10000 measures other numbers. The reports are
those of the phantom (seven departments' ways of writing), each of its own made-up patient; no image is made for them.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from petground.labeling.volume import Volume
from petground.pipeline.executors import default_workers
from petground.pipeline.phantom.records import Lesion, Patient, PhantomExam
from petground.pipeline.phantom.reports import write_report
from petground.pipeline.phantom.sites import SITES

SIZES = "10000,100000"
SHAPE = (2, 2, 300)
NORMAL = {"liver": 2.9, "blood pool": 1.9, "left kidney": 12.1, "right kidney": 11.5, "bladder": 45.2, "brain": 11.3}
TRACERS = ("FDG", "FDG", "FDG", "DOTATATE", "DCFPyL", "fluciclovine")
GRID = np.diag([-200.0, -200.0, 3.0, 1.0])
CT = Volume(np.zeros(SHAPE, np.int16), GRID, "HU")
MIB = 1 << 20


def made_up(index: int, rng: np.random.Generator) -> PhantomExam:
    """Lesions at places of the phantom, with values and slices drawn; images of a few voxels stand for the exam's."""
    pet = Volume(np.zeros(SHAPE, np.float32), GRID, "SUVbw")
    normal = {name: float(value * rng.uniform(0.8, 1.2)) for name, value in NORMAL.items()}
    lesions = []
    for n, at in enumerate(rng.permutation(len(SITES))[: int(rng.integers(2, 9))]):
        place = SITES[at]
        k = int(rng.integers(20, 280))
        mask = np.zeros(SHAPE, bool)
        mask[0, 0, k] = True
        suv = float(np.float32(rng.uniform(2.0, 25.0)))
        pet.array[0, 0, k] = suv
        side = place.sides[int(rng.integers(len(place.sides)))]
        mm = float(rng.uniform(*place.diameter_mm))
        ml = np.pi / 6 * (mm / 10) ** 3
        lesions.append(Lesion(f"L{n}", place.name, side, place.region, mask, mm, ml, suv, (0, 0, k), SHAPE[2] - k))
    tracer = TRACERS[index % len(TRACERS)]
    sex = "FM"[index % 2] if tracer in ("FDG", "DOTATATE") else "M"
    patient = Patient(f"P{index // 2:07d}", sex, 40 + index % 45, 78.0, 174.0, tracer, "2021-03-04", 351.4, 62.0)
    slices = {organ: 30 * n for n, organ in enumerate(NORMAL, 1)}
    return PhantomExam(f"E{index:07d}", patient, pet, CT, tuple(lesions), normal, slices)


def reports(count: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """Rows of an export; the same seed gives the same reports, whatever their number."""
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        exam = made_up(index, rng)
        who = exam.patient
        yield {
            "exam_id": exam.exam_id,
            "report_text": write_report(exam, rng).text,
            "patient_id": who.patient_id,
            "tracer": who.tracer,
            "study_date": who.study_date,
        }


def write_export(path: Path, count: int) -> float:
    """Writes the CSV; returns the mean number of words of a report."""
    words = 0
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["exam_id", "report_text", "patient_id", "tracer", "study_date"])
        writer.writeheader()
        for row in reports(count):
            words += len(row["report_text"].split())
            writer.writerow(row)
    return words / count


def _memory(pid: int) -> tuple[int, int]:
    """Resident memory [bytes] of the command itself, and of it and its workers together."""
    try:
        parent = psutil.Process(pid)
        own = parent.memory_info().rss
        return own, own + sum(child.memory_info().rss for child in parent.children(recursive=True))
    except psutil.Error:
        return 0, 0


def run(*arguments: str) -> dict[str, float]:
    """Runs `petground ...`: seconds and highest resident memory."""
    start = time.monotonic()
    command = [sys.executable, "-m", "petground.pipeline.cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    own = whole = 0
    while process.poll() is None:
        now = _memory(process.pid)
        own, whole = max(own, now[0]), max(whole, now[1])
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"petground {arguments[0]} ended with {process.returncode}")
    return {"seconds": time.monotonic() - start, "command_mib": own / MIB, "with_workers_mib": whole / MIB}


def measure() -> dict[str, Any]:
    figures: dict[str, Any] = {"workers": default_workers()}
    sizes = [int(size) for size in os.environ.get("PETGROUND_BENCH_REPORTS", SIZES).split(",")]
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            export, out = Path(folder) / "reports.csv", Path(folder) / "work"
            words = write_export(export, count)
            taken = run("extract", "--reports", str(export), "--out", str(out))
            again = run("extract", "--reports", str(export), "--out", str(out))
            summary = json.loads((out / "summary.json").read_text())
            shards = list((out / "extract").glob("*.parquet"))
            figures[str(count)] = {
                "words_per_report": round(words),
                "export_mib": round(export.stat().st_size / MIB, 1),
                "reports_per_second": round(count / taken["seconds"], 1),
                "seconds": round(taken["seconds"], 1),
                "seconds_again_nothing_to_do": round(again["seconds"], 1),
                "peak_mib_command": round(taken["command_mib"]),
                "peak_mib_with_workers": round(taken["with_workers_mib"]),
                "mentions": summary["mentions"],
                "findings_row_groups": pq.ParquetFile(out / "findings.parquet").num_row_groups,
                "shard_files": len(shards),
                "shards_mib": round(sum(path.stat().st_size for path in shards) / MIB, 1),
                "findings_mib": round((out / "findings.parquet").stat().st_size / MIB, 1),
            }
    first, last = (figures[str(size)] for size in (sizes[0], sizes[-1]))
    for name in ("peak_mib_command", "peak_mib_with_workers"):
        figures[f"{name}_ratio"] = round(last[name] / first[name], 3)
    return figures
