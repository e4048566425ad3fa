"""Imports every module of the installed wheel; the libraries are taken from another environment's folder (argument)."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path

libraries = sys.argv[1]
installed = Path(sysconfig.get_paths()["purelib"]) / "petground"
# Appended, not a .pth file: the editable install of the checkout, which hooks imports through one, must not be seen.
sys.path.append(libraries)
files = sorted(installed.rglob("*.py"))
names = [".".join(file.relative_to(installed.parent).with_suffix("").parts) for file in files]
names = [name.removesuffix(".__init__") for name in names]
for name in names:
    module = importlib.import_module(name)
    if not Path(module.__file__ or "").is_relative_to(installed):
        sys.exit(f"{name} came from {module.__file__}, not from the wheel")
stray = [p.name for p in installed.parent.iterdir() if p.name in {"models", "kernels", "pipeline", "labeling", "tests"}]
if stray or len(names) < 20:
    sys.exit(f"the wheel is wrong: {len(names)} modules, stray top-level packages {stray}")
sys.stdout.write(f"wheel: {len(names)} modules import\n")
