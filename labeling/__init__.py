"""Report language, SUV arithmetic, matching and contouring: pure domain logic, no files, no torch.

Text in, findings out; arrays and affines in, masks out. Everything here is importable without a
DICOM reader and testable on arrays made in the test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from petground.labeling.finding import IMAGE_REASONS, TEXT_REASONS, Candidate, Denial, Excluded, Finding, Label
from petground.labeling.site import Site, site_from_mapping
from petground.labeling.volume import Volume

if TYPE_CHECKING:
    from petground.labeling.extract import extract_findings
    from petground.labeling.label import label_exam, label_finding
    from petground.labeling.language.denials import find_denials

__all__ = [
    "IMAGE_REASONS",
    "TEXT_REASONS",
    "Candidate",
    "Denial",
    "Excluded",
    "Finding",
    "Label",
    "Site",
    "Volume",
    "extract_findings",
    "find_denials",
    "label_exam",
    "label_finding",
    "site_from_mapping",
]

_LATE = {
    "extract_findings": "extract",
    "find_denials": "language.denials",
    "label_exam": "label",
    "label_finding": "label",
}


def __getattr__(name: str) -> Any:
    """Loaded on first use: spaCy and scikit-image take a second that a reader of records need not wait."""
    if name in _LATE:
        return getattr(importlib.import_module(f"petground.labeling.{_LATE[name]}"), name)
    raise AttributeError(f"module 'petground.labeling' has no attribute '{name}'")
