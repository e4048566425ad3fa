"""SUVbw by petground beside mirp and pysuv: on reference objects made by the tests, the IBSI's own, and public exams.

The two programs need an environment of their own; its interpreter is named in PETGROUND_SUV_PEERS:

    python -m venv peers && peers/bin/pip install mirp==2.7.0 pysuv==0.1.0 pyjpegls
    PETGROUND_SUV_PEERS=peers/bin/python python benchmarks/run.py suv_oracles

A program that is missing is left out; public data are looked for as by the tests (PETGROUND_SHARED). docs/suv.md tells
why they differ where they do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from petground.labeling.errors import PetgroundError
from petground.pipeline.read import read_exam

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("PETGROUND_SHARED", HERE.parents[1] / "shared")) / "data"
PUBLIC = {"acrin_042": "PET_AC", "sts_001_whole_body": "STS_001/FDG_PET/image", "ibsi_sts_dicom": "STS_002/PET"}
TOLERANCE = 2e-3  # relative, in the maximum and in the mean
VERSIONS = {"mirp": "2.7.0", "pysuv": "0.1.0"}


def measure() -> dict[str, Any] | None:
    """Per object what each program's maximum and mean are over the true ones (or petground's, on exams)."""
    peers = os.environ.get("PETGROUND_SUV_PEERS")
    if not peers:
        return None
    with TemporaryDirectory() as folder:
        series = _objects(Path(folder)) | _public(Path(folder))
        ours = {name: _ours(place) for name, place in series.items()}
        theirs = {program: _theirs(peers, program, series) for program in VERSIONS}
    rows = {name: {"petground": _said(value)} for name, value in ours.items()}
    for program, told in theirs.items():
        if told is None:
            continue
        for name, value in told.items():
            rows[name][program] = _compared(value, ours[name])
    programs = [program for program, told in theirs.items() if told is not None]
    return {
        "programs": {program: VERSIONS[program] for program in programs},
        "objects": len(rows),
        "agree": {p: sum(row.get(p, "").startswith("agrees") for row in rows.values()) for p in programs},
        "rows": rows,
    }


def _objects(folder: Path) -> dict[str, Path]:
    """The tests' reference objects, those that must be refused included."""
    sys.path.append(str(HERE.parent / "tests" / "pipeline"))
    import suv_objects as made

    found = {}
    for name, (per_suv, vary) in made.OBJECTS.items():
        found[name] = folder / f"object{len(found)}"
        made.make(found[name], per_suv, vary)
    for name, (vary, _) in made.ERRORS.items():
        found[f"error {name}"] = folder / f"object{len(found)}"
        made.make(found[f"error {name}"], made.at_start, vary)
    return found


def _public(folder: Path) -> dict[str, Path]:
    found = {}
    if (SHARED / "suv_dro.zip").is_file():
        with zipfile.ZipFile(SHARED / "suv_dro.zip") as archive:
            archive.extractall(folder)
        found = {f"IBSI {dro.name}": dro / "PT" for dro in sorted((folder / "suv_dro").glob("DRO_*"))}
    for name, inside in PUBLIC.items():
        if (SHARED / f"{name}.zip").is_file():
            with zipfile.ZipFile(SHARED / f"{name}.zip") as archive:
                archive.extractall(folder)
            found[name] = folder / name / inside
    return found


def _ours(folder: Path) -> tuple[list[float], str] | str:
    try:
        exam = read_exam(folder, case="x")
    except PetgroundError as error:
        return f"refused: {error.message}"
    values = exam.pet.array.astype(np.float64)
    return [float(f(values)) for f in (np.min, np.median, np.max, np.mean)], exam.suv_rule


def _theirs(python: str, program: str, series: dict[str, Path]) -> dict[str, list[float] | str] | None:
    command = [python, str(HERE / "suv_oracle_peers.py"), program, *map(str, series.values())]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    if told.returncode:
        return None
    values = json.loads(told.stdout.strip().splitlines()[-1])
    if all(isinstance(value, str) and "ModuleNotFound" in value for value in values.values()):
        return None
    return {name: values[str(place)] for name, place in series.items()}


def _said(ours: tuple[list[float], str] | str) -> str:
    return ours if isinstance(ours, str) else f"max {ours[0][2]:.4f}, {ours[1]}"


def _compared(theirs: list[float] | str, ours: tuple[list[float], str] | str) -> str:
    if isinstance(theirs, str):
        return "agrees (refuses)" if isinstance(ours, str) else f"refuses: {theirs}"
    if isinstance(ours, str):
        return f"gives max {theirs[2]:.4g}"
    ratio = theirs[2] / ours[0][2], theirs[3] / max(ours[0][3], 1e-12)
    # negative voxels are set to 0 by some, which moves the mean a little
    if abs(ratio[0] - 1) <= TOLERANCE and abs(ratio[1] - 1) <= 10 * TOLERANCE:
        return "agrees"
    return f"{ratio[0]:.3f} times our maximum, {ratio[1]:.3f} times our mean"
