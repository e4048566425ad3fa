"""Compiles the report reader to machine code where PETGROUND_COMPILED=1 is set: `make compiled`. Without it, nothing.

All else about the package is in pyproject.toml. The sources stay as they are, and lie in the wheel beside what was
made of them; mypyc turns their annotations into types of C, so what it makes reads the same and faster.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from setuptools import Extension

PACKAGE = Path("petground/labeling/language")
INTERPRETED = ("__init__", "pipeline")  # imports and spaCy's registry: nothing to gain
WORK = Path("build/mypyc")


def compiled_reader() -> list[Extension]:
    """The reader's modules as extensions; all code lies in one of them, inside the package."""
    if not {"editable_wheel", "develop", "--inplace", "-i"}.isdisjoint(sys.argv):
        raise SystemExit("PETGROUND_COMPILED makes a wheel only: in a checkout, compiled files would hide later edits")
    if "bdist_wheel" not in sys.argv:  # the front end is still asking what the build needs: this, see below
        return []
    from mypyc.build import mypycify

    # A copy, because mypy names modules by their folders and the checkout has no folder `petground`.
    shutil.rmtree(WORK / "source", ignore_errors=True)
    shutil.copytree("labeling/language", WORK / "source" / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    os.environ["MYPYPATH"] = str(WORK / "source")
    modules = sorted((WORK / "source" / PACKAGE).glob("*.py"))
    options = ["--config-file=", f"--cache-dir={WORK / 'cache'}", "--explicit-package-bases"]
    outside = ["--follow-imports=skip", "--ignore-missing-imports"]  # spaCy, NumPy and `Finding` stay Python's
    extensions = mypycify(
        [*options, *outside, *(str(module) for module in modules if module.stem not in INTERPRETED)],
        opt_level="2",
        debug_level="0",
        multi_file=True,  # one file of C per module: as one alone it takes gigabytes
        target_dir=str(WORK),
        group_name=".".join((*PACKAGE.parts, "compiled")),
    )
    for extension in extensions:  # the modules' files name the headers of a group inside a package without its folder
        extension.include_dirs.append(str(WORK / PACKAGE))
    return extensions


if os.environ.get("PETGROUND_COMPILED", "0") not in ("", "0"):
    setup(ext_modules=compiled_reader(), setup_requires=["mypy>=2.4"])
else:
    setup()
