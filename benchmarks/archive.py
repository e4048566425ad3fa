"""`petground label` on DICOM exams of hospital size, against the time merely to read the same files.

Run by `python benchmarks/run.py archive`; PETGROUND_BENCH_EXAMS=24 says how many. One phantom exam is written as DICOM
with matrices as scanners make them (PET 168 x 168, CT 512 x 512), and stands there under many exam ids (hard links).
Merely reading is `pydicom.dcmread(file).pixel_array` of every file, in as many processes. Both take turns, in the same
processes, from the page cache; extraction of the report, hashing, SUV, NIfTI files, masks and tables are all in.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from petground.labeling.site import Site
from petground.pipeline.commands.phantom import phantom
from petground.pipeline.executors import Runner, default_workers, executor
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.reports import open_export

EXAMS = 16
ROUNDS = 3
MATRIX = {"PT": 168, "CT": 512}
ZOOM = {"PT": 1, "CT": 2}
SEED = 11


def enlarge(file: Path, target: Path, rng: np.random.Generator) -> None:
    """One plane of the phantom on the matrix of a scanner: CT pixels halved, both framed; CT with noise in air too."""
    header = pydicom.dcmread(file)
    kind = header.Modality
    pixels: NDArray[Any] = np.kron(header.pixel_array, np.ones((ZOOM[kind], ZOOM[kind]), header.pixel_array.dtype))
    size = max(MATRIX[kind], *pixels.shape)
    above, left = (size - pixels.shape[0]) // 2, (size - pixels.shape[1]) // 2
    out = np.full((size, size), pixels.flat[0], pixels.dtype)
    out[above : above + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    if kind == "CT":
        out += np.rint(rng.normal(0, 12, out.shape)).astype(out.dtype)
        if not header.PixelRepresentation:
            out = np.maximum(out.astype(np.int32), 0).astype(pixels.dtype)
    row, column = np.array(header.ImageOrientationPatient[:3]), np.array(header.ImageOrientationPatient[3:])
    old = np.array([float(v) for v in header.PixelSpacing])
    new = old / ZOOM[kind]
    corner = np.array([float(v) for v in header.ImagePositionPatient]) - 0.5 * (row * old[1] + column * old[0])
    first = corner + 0.5 * (row * new[1] + column * new[0]) - row * new[1] * left - column * new[0] * above
    header.ImagePositionPatient = [f"{v:.6g}" for v in first]
    header.PixelSpacing = [f"{v:.6g}" for v in new]
    header.Rows = header.Columns = size
    header.PixelData = out.tobytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(target)


def make_archive(folder: Path, count: int) -> tuple[Path, Path]:
    """The export and the folder of `count` exams that are all the same one."""
    phantom(folder / "phantom", exams=1, seed=SEED, format="dicom", workers=1)
    with (folder / "phantom" / "reports.csv").open(newline="", encoding="utf-8") as stream:
        (report,) = csv.DictReader(stream)
    source = folder / "phantom" / "exams" / report["exam_id"]
    rng = np.random.default_rng(SEED)
    exams = folder / "exams"
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        enlarge(file, exams / "E000" / file.relative_to(source), rng)
    names = [f"E{number:03d}" for number in range(count)]
    for name in names[1:]:
        shutil.copytree(exams / names[0], exams / name, copy_function=os.link)
    export = folder / "reports.csv"
    with export.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(report))
        writer.writeheader()
        writer.writerows({**report, "exam_id": name, "patient_id": name} for name in names)
    return export, exams


def read_all(folder: str) -> int:
    """Every file's pixels, as pydicom gives them; returns how many."""
    return sum(int(pydicom.dcmread(p).pixel_array.size > 0) for p in sorted(Path(folder).rglob("*")) if p.is_file())


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed_reading(run: Runner, exams: Path, names: list[str]) -> float:
    start = time.perf_counter()
    outcomes = list(run(read_all, [(name, (str(exams / name),)) for name in names]))
    if any(outcome.reason for outcome in outcomes):
        raise RuntimeError(f"reading failed: {outcomes[0]}")
    return time.perf_counter() - start


def measure() -> dict[str, Any]:
    count, workers = int(os.environ.get("PETGROUND_BENCH_EXAMS", EXAMS)), default_workers()
    reading, labelling, summary = [], [], {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        export, exams = make_archive(folder, count)
        names = sorted(p.name for p in exams.iterdir())
        files = [p for p in (exams / names[0]).rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files)
        with executor(workers=workers) as run:
            _timed_reading(run, exams, names[:workers])  # imports, page cache
            run_labels(LabelRun(open_export(export), exams, folder / "warm", Site(), run))
            shutil.rmtree(folder / "warm")
            for turn in range(ROUNDS):
                reading.append(_timed_reading(run, exams, names))
                out = folder / f"work{turn}"
                start = time.perf_counter()
                summary = run_labels(LabelRun(open_export(export), exams, out, Site(), run))
                labelling.append(time.perf_counter() - start)
                written = sum(p.stat().st_size for p in (out / "exams" / names[0]).rglob("*"))
                shutil.rmtree(out)
            peaks = [outcome.value for outcome in run(peak_mib, [(str(n), ()) for n in range(4 * workers)])]
    ratios = [label / read for read, label in zip(reading, labelling, strict=True)]
    return {
        "workers": workers,
        "exams": count,
        "files_per_exam": len(files),
        "mib_per_exam": round(size / (1 << 20), 1),
        "mib_written_per_exam": round(written / (1 << 20), 1),
        "labels": summary["labels"],
        "exams_failed": summary["exams_failed"],
        "exams_per_minute_reading": round(60 * count / statistics.median(reading), 1),
        "exams_per_minute_label": round(60 * count / statistics.median(labelling), 1),
        "ratio_label_to_reading": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "peak_mib_per_worker": round(max(peaks)),
    }
