"""`petground info`: what a bug report needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json as to_json
import os
import pkgutil
import platform
import shutil
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["info"]

LIBRARIES = (
    *("torch", "torchvision", "lightning", "monai", "nnunetv2", "transformers", "peft", "spacy", "pydicom"),
    *("highdicom", "nibabel", "SimpleITK", "pyarrow", "numpy", "scipy", "distributed"),
)
TOOLS = {"dciodvfy": "checks DICOM SEG and SR", "TotalSegmentator": "organ masks"}


def info(json: bool = False) -> int:
    """Versions, cores, accelerator, text encoders that are here, and optional tools of this installation.

    Args:
        json: print JSON instead of a table.
    """
    facts = _facts()
    console = Console()
    if json:
        console.print(to_json.dumps(facts, indent=1), highlight=False, markup=False, soft_wrap=True)
        return 0
    table = Table(show_header=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key} {item or 'not installed'}" for key, item in value.items())
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    return 0


def _facts() -> dict[str, Any]:
    return {
        "petground": importlib.metadata.version("petground"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": _accelerator(),
        "text_encoders": _text_encoders(),
        "libraries": {name: _installed(name) for name in LIBRARIES},
        "tools": {name: shutil.which(name) for name in TOOLS},
    }


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text_encoders() -> dict[str, str]:
    """Those that `petground train` can take without a network, and where they are."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return {}
    found: dict[str, str] = pkgutil.resolve_name("petground.models.text.files:available_encoders")()
    return found


def _accelerator() -> str:
    """Asked of torch by name: this room does not import it."""
    if importlib.util.find_spec("torch") is None:
        return "none (torch is not installed)"
    cuda = importlib.import_module("torch.cuda")
    return str(cuda.get_device_name(0)) if cuda.is_available() else "none"
