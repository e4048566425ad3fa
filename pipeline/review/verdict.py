"""What physicians' decisions mean for one exam's labels: which stay out, which someone accepted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from petground.pipeline.decided import KEPT_OUT, Row, kept_out, newest, standing
from petground.pipeline.review.decisions import label_hash
from petground.pipeline.review.load import Case

__all__ = ["Verdicts", "verdicts_of"]


@dataclass(frozen=True)
class Verdicts:
    """The events of WORK/decisions.csv by exam_id."""

    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def of(self, exam_id: str) -> Sequence[Row]:
        """Every event of an exam, retractions too."""
        return self.rows.get(exam_id, ())

    def words(self, exam_id: str) -> dict[str, str]:
        """The decision that counts, by finding_id."""
        return {finding_id: row["decision"] for (_, finding_id), row in newest(self.of(exam_id)).items()}

    def kept_out(self, exam_id: str) -> dict[str, str]:
        """Why a finding's label must not leave as a lesion, in words, by finding_id."""
        return {finding_id: KEPT_OUT[word] for (_, finding_id), word in kept_out(self.of(exam_id)).items()}

    def accepted_by(self, case: Case, reviewer: str) -> bool:
        """Whether this person's newest decision on each label of the case, as it is now, accepts it."""
        own = {
            (row["finding_id"], row["label_hash"]): row["decision"]
            for row in standing(self.of(case.exam_id))
            if _name(row["reviewer"]) == _name(reviewer)
        }
        labels = [(i.finding_id, label_hash(i.finding, i.mask)) for i in case.items if i.label is not None]
        return bool(labels) and all(own.get(seen) == "accept" for seen in labels)


def verdicts_of(decisions: Iterable[Row]) -> Verdicts:
    """The rows of `decisions_of`."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in decisions:
        rows[row["exam_id"]].append(row)
    return Verdicts(dict(rows))


def _name(person: str) -> list[str]:
    """The same for "Doe^Jane", "Doe, Jane" and "Jane Doe": a page's field is free text, DICOM's is not."""
    return sorted(re.findall(r"\w+", person.casefold()))
