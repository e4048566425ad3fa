"""What the labels of a run say of how slices were counted: a wrong answer makes none, or all a little beside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from petground.labeling.finding import Finding

__all__ = ["SliceTally"]

FEWEST_LABELS = 5  # fewer that share a distance may do so by chance
FEWEST_LOOKED_FOR = 3
MOST = 0.75  # part of the labels that shares a distance
WAY_OUT = "are slices counted as the site file says? `petground label --infer-numbering` finds how (docs/numbering.md)"


class SliceTally:
    """Counts findings that state a slice: how many were looked for, not found, and labelled how far from it."""

    def __init__(self) -> None:
        self.looked_for, self.not_found = 0, 0
        self.off: Counter[int] = Counter()  # measured less reported slice number, by label

    def add(self, finding: Finding, fate: Mapping[str, Any] | None) -> None:
        """fate: as WORK/labels keeps it, chosen candidate first; None for a finding that was not looked for."""
        if finding.slice is None or fate is None:
            return
        self.looked_for += 1
        self.not_found += fate.get("reason") == "no_match"
        if "label" in fate:
            # a CT slice's number is not given back exactly by the PET slice that it lies in: the distance decides
            beside = fate["candidates"][0]["slice_distance"] != 0
            self.off[fate["label"]["slice_measured"] - finding.slice if beside else 0] += 1

    def notes(self) -> list[str]:
        """A sentence for each sign that slices are counted otherwise than the labels were made with."""
        told = []
        if self.looked_for >= FEWEST_LOOKED_FOR and 2 * self.not_found > self.looked_for:
            told.append(f"{self.not_found} of {self.looked_for} findings are not at the slice they state: {WAY_OUT}")
        labels = self.off.total()
        off, sharing = self.off.most_common(1)[0] if self.off else (0, 0)
        if off and labels >= FEWEST_LABELS and sharing >= MOST * labels:
            where = f"{abs(off)} {'higher' if off > 0 else 'lower'} than reported"
            told.append(f"{sharing} of {labels} labels lie at a slice number {where}: {WAY_OUT}")
        return told
