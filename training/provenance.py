"""Where a run came from: versions of what it runs on, hashes of what it learnt from, the state of the checkout."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from petground.pipeline.splits import patient_hash

__all__ = ["data_hashes", "git_state", "noted", "versions"]

_TABLES = ("exams.parquet", "findings.parquet", "denials.parquet", "labels.parquet", "decisions.csv")
_SOURCES = ("*.py", "*.yaml", "*.json", "*.toml", "*.txt")
_PACKAGES = ("petground", "torch", "lightning", "monai", "transformers", "peft", "numpy")


def versions() -> dict[str, str]:
    """Python's, and those of the packages that results depend on, as far as they are here."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def data_hashes(work: Path, keys: Mapping[str, str]) -> dict[str, Any]:
    """{"tables": {name: sha256} of WORK's tables that are there, "exams": number, "content": hash over `keys`}.

    keys: of each exam its cache key, a hash of its PET, CT and label masks and of the grid they were put on, as
    `training.cache.cache_key` gives: equal content means that the same voxels were learnt from.
    """
    tables = {}
    for name in _TABLES:
        if (work / name).is_file():
            tables[name] = hashlib.sha256((work / name).read_bytes()).hexdigest()[:32]
    content = hashlib.sha256(json.dumps(sorted(keys.items())).encode()).hexdigest()[:32]
    return {"tables": tables, "exams": len(keys), "content": content}


def noted(before: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """A model's provenance with who trains and validates on this data module added to who did: nobody is forgotten."""
    now, splits = dict(before), before.get("splits", {})
    for name, did in (("train", "trained"), ("val", "validated")):
        exams = data.split.get(name, [])
        hashes = {patient_hash(data.exams[exam].patient_id) for exam in exams}
        now[f"{did}_on"] = sorted({*before.get(f"{did}_on", splits.get(name, [])), *exams})
        now[f"{did}_patients"] = sorted({*before.get(f"{did}_patients", []), *hashes})
    now["splits"] = {name: list(exams) for name, exams in data.split.items()}
    now["prompt"] = getattr(data, "prompt", "words")
    return {**now, "data": data_hashes(data.work, data.keys), "git": git_state()}


def git_state(root: Path | None = None) -> dict[str, Any] | None:
    """{"commit", "dirty", "diff"} of the checkout that runs; None when this is no checkout, or git is not here.

    dirty: a source file was changed or is new. diff: hash of the changes, null
    when there are none. root: petground's own folder by default; a folder inside of somebody else's repository is
    not taken for a checkout.
    """
    root = Path(__file__).resolve().parents[1] if root is None else root
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(
        root, "status", "--porcelain", "--untracked-files=normal", "--", "*.py", "*.yaml", "*.json", "*.toml"
    )
    if commit is None or changed is None:
        return None
    diff = (_git(root, "diff", "HEAD", "--", *_SOURCES) or "") + changed
    return {
        "commit": commit.strip(),
        "dirty": bool(changed.strip()),
        "diff": hashlib.sha256(diff.encode()).hexdigest()[:16] if changed.strip() else None,
    }


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "--no-optional-locks", *words],
            capture_output=True, text=True, errors="replace", timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
