"""Organ maps of exams: found, read with the names they carry, or made by TotalSegmentator where it is installed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.organs import canonical, class_ids, require_upright
from petground.labeling.volume import Volume
from petground.pipeline.geometry import axial_last
from petground.pipeline.nifti import NIFTI_SUFFIXES, read_nifti
from petground.pipeline.stage import content_hash, run_stage

__all__ = ["NO_MAPS", "OrganSource", "given_map", "label_names", "map_file", "organ_map", "organ_source", "read_organs"]

SEGMENTER = "TotalSegmentator"
_NAME = re.compile(rb'<Label\s+Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?\s*([A-Za-z0-9_]+)')


@dataclass(frozen=True)
class OrganSource:
    """Where organ maps come from. folder: of maps by exam; segment: TotalSegmentator makes them.

    version: of the class ids in maps without names. An exam's own organs.nii.gz is taken in any case, before others.
    """

    folder: Path | None = None
    segment: bool = False
    version: int | None = None


NO_MAPS = OrganSource()


def organ_source(asked: str | None, version: int | None) -> OrganSource:
    """What `--organs` asks for. Raises ConfigError for a folder that is none and when TotalSegmentator is
    asked for and not installed, InputError for a folder without maps.
    """
    if version not in (None, 1, 2):
        raise ConfigError(f"--organs-version is {version}", fix="1 or 2")
    if asked is None:
        return OrganSource(version=version)
    if asked.casefold() == SEGMENTER.casefold():
        _program()
        return OrganSource(segment=True, version=version)
    folder = Path(asked)
    if not folder.is_dir():
        raise ConfigError(f"no folder of organ maps at {asked}", fix="give one, or --organs totalsegmentator")
    if not any(folder.glob("*.nii*")) and not any(folder.glob("*/organs.nii*")):
        raise InputError(f"no organ maps in {asked}", fix="<exam_id>.nii.gz or <exam_id>/organs.nii.gz is expected")
    return OrganSource(folder=folder, version=version)


def organ_map(
    source: OrganSource, exam: Path, out: Path, exam_id: str, ingested: Mapping[str, Any]
) -> tuple[Path, str] | None:
    """The exam's organ map and a digest of it, made by TotalSegmentator if asked; None when there is none.

    exam: folder of the exam's images. ingested: the value of its ingest, with `key` and `ct`. Raises InputError when
    TotalSegmentator fails.
    """
    given = given_map(source, exam, exam_id)
    if given is not None or not source.segment or not ingested["ct"]:
        return given
    folder = out / "organs" / exam_id
    key = content_hash(["organs", ingested["key"], _version()])
    run_stage(folder, key, lambda part: _segment(out / "exams" / exam_id / "ct.nii.gz", part / "organs.nii.gz"))
    return folder / "organs.nii.gz", key


def given_map(source: OrganSource, exam: Path, exam_id: str) -> tuple[Path, str] | None:
    """The map that lies among the exam's images or in the folder of maps, and its digest."""
    found = map_file(source, exam, exam_id)
    return None if found is None else (found, hashlib.blake2b(found.read_bytes(), digest_size=16).hexdigest())


def map_file(source: OrganSource, exam: Path, exam_id: str) -> Path | None:
    """Where an exam's organ map lies, or None."""
    places = [exam / "organs"]
    if source.folder is not None:
        places += [source.folder / exam_id, source.folder / exam_id / "organs"]
    files = (Path(f"{place}{suffix}") for place in places for suffix in NIFTI_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def read_organs(path: Path, version: int | None = None) -> Volume:
    """A label map in the project's class ids. The names in the file's header decide; without names the ids are those
    of `version`, 2 where None.

    Raises InputError or GeometryError (reason "organ_map") for a file that is no such map, or that lies the wrong way.
    """
    labels = axial_last(read_nifti(path, "label"))
    names = label_names(path) or class_ids(version or 2)
    organs = canonical(labels, names)
    require_upright(organs)
    return organs


def label_names(path: Path) -> dict[int, str]:
    """Names in the NIfTI header extension: the XML label table that TotalSegmentator and Connectome Workbench write."""
    for extension in nib.load(path).header.extensions:
        content = extension.get_content()
        content = content if isinstance(content, bytes) else str(content).encode()
        found = {int(number): name.decode() for number, name in _NAME.findall(content)}
        if found:
            return found
    return {}


def _program() -> str:
    beside = Path(sys.executable).with_name(SEGMENTER)
    found = shutil.which(SEGMENTER) or (str(beside) if beside.is_file() else None)
    if found is None:
        raise ConfigError(
            "TotalSegmentator is not installed",
            fix="pip install TotalSegmentator (an environment of its own will do, if its command is on the PATH)",
        )
    return found


@cache
def _version() -> str:
    """What the program says of itself: maps of another version are made anew."""
    told = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=False, timeout=300)
    return (told.stdout or told.stderr).strip()[:200]


def _segment(ct: Path, target: Path) -> dict[str, Any]:
    command = [_program(), "-i", str(ct), "-o", str(target), "--ml", "--task", "total"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if run.returncode or not target.is_file():
        last = (run.stderr.strip() or run.stdout.strip() or "it wrote nothing").splitlines()[-1][:200]
        raise InputError(f"TotalSegmentator failed (code {run.returncode}): {last}", reason="organ_map")
    return {"made_by": _version()}
