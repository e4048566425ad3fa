"""The same finding told again counts once."""

from __future__ import annotations

from dataclasses import replace

from petground.labeling.finding import Finding, Laterality

__all__ = ["mark_repeats"]

_LESION = (None, "no_slice", "not_axial", "ambiguous", "range", "not_max")


def mark_repeats(findings: list[Finding]) -> list[Finding]:
    """The same finding told again counts once: in the impression, or with the same value and slice anywhere."""
    result = list(findings)
    body = _Told()
    for finding in findings:
        if finding.section != "impression" and finding.reason in _LESION:
            body.add(finding)
    seen, concluded = _Told(), _Told()
    for i, finding in enumerate(findings):
        if finding.reason not in _LESION:
            continue
        if finding.section == "impression":
            again = body.has(finding, anywhere=True) or concluded.has(finding, anywhere=True)
            concluded.add(finding)
        else:
            again = finding.slice is not None and seen.has(finding, anywhere=False)
            seen.add(finding)
        if again:
            result[i] = replace(finding, status="excluded", reason="repeat")
    return result


class _Told:
    """Values told so far: by SUV and slice, the sides they were told of."""

    def __init__(self) -> None:
        self._sides: dict[float, dict[int | None, set[Laterality | None]]] = {}

    def add(self, finding: Finding) -> None:
        """Remembers a finding."""
        self._sides.setdefault(finding.suv, {}).setdefault(finding.slice, set()).add(finding.laterality)

    def has(self, finding: Finding, *, anywhere: bool) -> bool:
        """Whether it was told before; `anywhere`: a mention without slice repeats the value at any slice."""
        by_slice = self._sides.get(finding.suv, {})
        if anywhere and finding.slice is None:
            sides = set().union(*by_slice.values()) if by_slice else set()
        else:
            sides = by_slice.get(finding.slice, set())
        other = {"left": "right", "right": "left"}.get(finding.laterality or "")
        return any(side != other or other is None for side in sides)
