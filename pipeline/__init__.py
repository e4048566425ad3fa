"""The staged pipeline around `labeling`: readers and writers, stages, executors, phantom, review. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petground.pipeline.read import Exam, read_ct, read_exam, read_pet

__all__ = ["Exam", "read_ct", "read_exam", "read_pet"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: the readers bring SimpleITK and pydicom, which `petground --help` can do without."""
    if name in __all__:
        return getattr(importlib.import_module("petground.pipeline.read"), name)
    raise AttributeError(f"module 'petground.pipeline' has no attribute '{name}'")
