"""Mixed conventions within one export: which scanner, or which years, count otherwise.

Exams are grouped by `numbering_tree` and each group is judged on its own (`infer_numbering.judge`). A group that is too
small to show a convention of its own stays with the others; scanners and years that contradict their group are taken
out of it and not labelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from petground.labeling.evidence import CONVENTIONS
from petground.labeling.infer_numbering import MARGIN, ExamEvidence, Verdict, evidence, judge, tabulate
from petground.labeling.numbering_tree import Condition, ExamSums, Rows, leaves
from petground.labeling.site import Site, SiteGroup

__all__ = ["Condition", "Group", "Inference", "infer", "inferred_site"]

CLEAR_PART = 0.5  # of the findings must lie in groups whose convention is clear
FEWEST_ODD = 2  # findings that can contradict a group; one alone may be a slip


@dataclass(frozen=True)
class Group:
    """Exams that are judged together. The first group whose condition an exam fulfils is its own."""

    condition: Condition
    exams: int
    findings: int
    verdict: Verdict


@dataclass(frozen=True)
class Inference:
    """Groups in order, the last for all exams that no other holds; the export judged as one; why it is refused."""

    groups: tuple[Group, ...]
    whole: Verdict
    refusal: str | None


def infer(exams: Sequence[ExamEvidence]) -> Inference:
    """The convention, or the conventions by scanner and time, that the exams' reports follow; or why not to say."""
    table = tabulate(exams)
    data, whole = ExamSums(exams, table), judge(table)
    groups: list[Group] = []
    clear = 0
    for condition, rows in leaves(data, np.arange(len(exams), dtype=np.int64), Condition()):
        verdict = judge(data.of(rows))
        if verdict.convention is not None:
            for odd, odd_rows in _contradicting(data, rows, condition, verdict):
                why = f"too few to tell, but not '{verdict.convention}' like the others"
                own = judge(data.of(odd_rows))
                groups.append(_group(data, odd, odd_rows, replace(own, convention=None, why_not=why)))
                rows = np.setdiff1d(rows, odd_rows)
            verdict = judge(data.of(rows))
        groups.append(_group(data, condition, rows, verdict))
        clear += groups[-1].findings if verdict.convention is not None else 0
    return Inference(tuple(groups), whole, _refusal(groups, whole, clear))


def inferred_site(inference: Inference, base: Site) -> Site:
    """`base` with the conventions found; where none is clear, `numbering_known` is False and nothing is labelled."""
    *special, rest = inference.groups
    groups = tuple(
        SiteGroup(g.condition.scanner, g.condition.since, g.condition.until, _settings(g.verdict)) for g in special
    )
    settings = _settings(rest.verdict)
    if len({tuple(group.changes.items()) for group in groups} | {tuple(settings.items())}) == 1:
        groups = ()
    return replace(base, **settings, groups=groups)


def _settings(verdict: Verdict) -> dict[str, Any]:
    if verdict.convention is None:
        return {"numbering_known": False}
    return {**verdict.convention.settings, "numbering_known": True}


def _group(data: ExamSums, condition: Condition, rows: Rows, verdict: Verdict) -> Group:
    return Group(condition, len(rows), int(data.testable[rows].sum()), verdict)


def _refusal(groups: Sequence[Group], whole: Verdict, clear: int) -> str | None:
    total = sum(group.findings for group in groups)
    if not clear:
        return whole.why_not or max(groups, key=lambda group: group.findings).verdict.why_not
    if clear < CLEAR_PART * total:
        return f"only {clear} of {total} findings belong to scanners and times whose convention is clear"
    return None


def _contradicting(
    data: ExamSums, rows: Rows, condition: Condition, verdict: Verdict
) -> Iterator[tuple[Condition, Rows]]:
    """Single scanners, and years of a scanner, that are likelier under chance or another convention than their group's.

    They had too little evidence for a group of their own, so what they follow is not known.
    """
    assert verdict.convention is not None
    column = CONVENTIONS.index(verdict.convention)
    total = data.sums[rows].sum(axis=0)[column]
    posterior = total - np.logaddexp.reduce(total)  # log, of p, from the whole group
    named, left = bool(data.scanner[rows].any()), rows
    for level in ("scanner", "year"):
        keys = [(data.scanner[r], data.date[r][:4] if level == "year" else "") for r in left]
        for (name, year), count in sorted(Counter(keys).items()):
            mine = np.array([r for r, key in zip(left, keys, strict=True) if key == (name, year)], dtype=np.int64)
            if count == len(rows) or (level == "year" and not year) or data.testable[mine].sum() < FEWEST_ODD:
                continue
            sums = data.sums[mine].sum(axis=0)
            as_group = float(np.logaddexp.reduce(sums[column] + posterior))
            own = evidence(sums)
            if max(0.0, float(own.max())) - as_group > MARGIN and own[column] < max(0.0, float(own.max())):
                yield _narrowed(condition, name if named else None, year), mine
                left, keys = _without(left, keys, mine)


def _without(rows: Rows, keys: list[tuple[str, str]], gone: Rows) -> tuple[Rows, list[tuple[str, str]]]:
    stays = ~np.isin(rows, gone)
    return rows[stays], [key for key, stay in zip(keys, stays, strict=True) if stay]


def _narrowed(condition: Condition, scanner: str | None, year: str) -> Condition:
    narrow = condition if scanner is None else replace(condition, scanner=scanner)
    if not year:
        return narrow
    since, until = f"{year}-01-01", f"{int(year) + 1}-01-01"
    return replace(narrow, since=max(since, narrow.since or since), until=min(until, narrow.until or until))
