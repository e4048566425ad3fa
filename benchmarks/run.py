"""Runs benchmarks and writes docs/results/<name>.json with the command, commit, machine, library versions and figures.

    python benchmarks/run.py            all but those that take hours (LONG)
    python benchmarks/run.py gold       one; this one needs annotated texts that are not shipped (benchmarks/gold.py)

A benchmark is a module of this folder with `measure() -> dict`; one that needs data or a GPU that is not there returns
None. Exit code 1 where figures name something that "failed".
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # what benchmarks share; also where the shell keeps it out (PYTHONSAFEPATH)
NAMES = (
    "gold", "weak_labels", "touching_small", "calibrate_confidence", "numbering", "matching", "suv_oracles", "deid",
    "medspacy_speed", "archive", "model_sizes",
)  # fmt: skip
LONG = ("extract", "grounding", "blocks", "blocks_trained", "full_size")  # hours, or a GPU: only when named
LIBRARIES = ("petground", "torch", "numpy", "scipy", "spacy", "pydicom", "SimpleITK")


def _load(name: str) -> ModuleType:
    if not (HERE / f"{name}.py").is_file():
        sys.exit(f"no benchmark '{name}'; there are {', '.join((*NAMES, *LONG))}")
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _commit() -> str:
    """The commit, "-dirty" where more than results and pictures differs from it."""

    def git(*arguments: str) -> str:
        told = subprocess.run(["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=False)
        return told.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results", ":!docs/images")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def main(names: list[str]) -> int:
    failed = []
    for name in names or NAMES:
        start = time.monotonic()
        figures = _load(name).measure()
        if figures is None:
            sys.stdout.write(f"{name}: left out, what it needs is not here (benchmarks/{name}.py says what)\n")
            continue
        result = {
            "command": f"python benchmarks/run.py {name}",
            "commit": _commit(),
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "libraries": {library: importlib.metadata.version(library) for library in LIBRARIES},
            "seconds": round(time.monotonic() - start, 1),
            "figures": figures,
        }
        path = HERE.parent / "docs" / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(figures, indent=1)}\n")
        failed += [f"{name}, {what}" for what in figures.get("failed", ())]
    sys.stderr.write("".join(f"FAILED: {what}\n" for what in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join((*NAMES, *LONG)))
    sys.exit(main(parser.parse_args().names))
