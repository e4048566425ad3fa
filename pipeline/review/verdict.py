"""What physicians' decisions mean for the labels as they are now: which are rejected, which someone accepted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from petground.labeling.errors import SchemaError
from petground.pipeline.review.decisions import label_hash, time_of
from petground.pipeline.review.load import Case, Item

__all__ = ["REJECTED", "Verdicts", "verdicts_of"]

REJECTED = {"wrong_lesion": "wrong lesion", "not_lesion": "not a lesion"}


@dataclass(frozen=True)
class Verdicts:
    """Decided rows by (exam_id, finding_id, label_hash), the oldest first."""

    rows: Mapping[tuple[str, str, str], list[Mapping[str, str]]]

    def rejection(self, case: Case, item: Item) -> str | None:
        """Why a label must not leave as a lesion, in words: what the newest decision on it says, whoever made it."""
        found = self._of(case, item)
        return REJECTED.get(found[-1]["decision"]) if found else None

    def accepted_by(self, case: Case, reviewer: str) -> bool:
        """Whether the newest decision of this person on each label of the case accepts it."""
        labels = [item for item in case.items if item.label is not None]
        newest = [[r for r in self._of(case, item) if _name(r["reviewer"]) == _name(reviewer)][-1:] for item in labels]
        return bool(labels) and all(own and own[0]["decision"] == "accept" for own in newest)

    def _of(self, case: Case, item: Item) -> list[Mapping[str, str]]:
        return self.rows.get((case.exam_id, item.finding_id, label_hash(item.finding, item.mask)), [])


def verdicts_of(decisions: Iterable[Mapping[str, str]]) -> Verdicts:
    """The rows of WORK/decisions.csv by what was judged. Raises SchemaError for a time that is none."""
    rows: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in decisions:
        if row["decision"]:
            rows.setdefault((row["exam_id"], row["finding_id"], row["label_hash"]), []).append(row)
    try:
        return Verdicts({key: sorted(found, key=time_of) for key, found in rows.items()})
    except ValueError as error:
        raise SchemaError(
            "decisions.csv holds a time that is none", fix="ISO 8601, e.g. 2025-03-01T09:30:00Z"
        ) from error


def _name(person: str) -> list[str]:
    """The same for "Doe^Jane", "Doe, Jane" and "Jane Doe": a page's field is free text, DICOM's is not."""
    return sorted(re.findall(r"\w+", person.casefold()))
