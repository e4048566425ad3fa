"""Tracers by the names that procedures, orders and DICOM headers give them."""

from __future__ import annotations

import re

__all__ = ["tracer_of"]

# Only names that leave no doubt: "PET/CT oncology" says nothing.
_TRACERS = (
    ("DOTATATE", r"dotatate|netspot|detectnet"),
    ("DOTATOC", r"dotatoc"),
    ("DOTANOC", r"dotanoc"),
    ("DCFPyL", r"dcfpyl|piflufolastat|pylarify"),
    ("PSMA-1007", r"psma[\s-]*1007"),
    ("PSMA-11", r"psma[\s-]*11|gozetotide|illuccix|locametz"),
    ("PSMA", r"psma"),
    ("fluciclovine", r"fluciclovine|axumin|facbc"),
    ("fluoroestradiol", r"fluoroestradiol|cerianna|\bfes\b"),
    ("FAPI", r"fapi"),
    ("choline", r"choline"),
    ("fluoride", r"sodium fluoride|\bnaf\b"),
    ("FDG", r"fdg|fluoro-?deoxy-?d?-?glucose|fludeoxyglucose"),
)


def tracer_of(words: str) -> str | None:
    """The tracer that a procedure's or a radiopharmaceutical's name states, None when it states none."""
    return next((name for name, pattern in _TRACERS if re.search(pattern, words, re.I)), None)
