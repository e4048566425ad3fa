"""The one rule of what decisions mean, and that pages, SEG and SR, exports and training all go by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export_work import make_work
from hypothesis import given
from hypothesis import strategies as st

from petground.labeling.errors import SchemaError
from petground.pipeline.decided import COLUMNS, DECISIONS, KEPT_OUT, RETRACT, decided, decisions_of, kept_out, newest
from petground.pipeline.exports.select import select
from petground.pipeline.review.decisions import write_decisions
from petground.pipeline.review.verdict import verdicts_of
from petground.training.work import read_exams


def row(decision: str, minute: int, reviewer: str = "Roe", **other: str) -> dict[str, str]:
    """An event on f001 of e00 at that minute; a retraction takes back what was decided at minute `reason`."""
    return dict.fromkeys(COLUMNS, "x") | {
        "exam_id": "e00", "finding_id": "f001", "decision": decision, "reason": "", "reviewer": reviewer,
        "time": f"2025-01-01T10:{minute:02d}:00Z",
    } | other  # fmt: skip


def back(minute: int, of: int, reviewer: str = "Roe") -> dict[str, str]:
    return row(RETRACT, minute, reviewer, reason=f"2025-01-01T10:{of:02d}:00.000+00:00")


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([row("accept", 1), row("not_lesion", 2)], "not_lesion"),
        ([row("accept", 2), row("not_lesion", 1)], "accept"),
        ([row("accept", 1), row("unsure", 1)], "unsure"),  # of equal times the later row
        ([row("not_lesion", 1), row("accept", 2), back(3, of=2)], "not_lesion"),
        ([row("not_lesion", 1), row("accept", 2), back(3, of=1)], "accept"),
        ([row("not_lesion", 1, "Doe"), row("accept", 2), back(3, of=1)], "accept"),  # not Roe's to take back
        ([row("not_lesion", 1, "Doe"), back(3, of=1)], "not_lesion"),
        ([row("accept", 1), back(2, of=1)], None),
        ([row("", 1)], None),
        ([row("accept", 1, label_hash="a"), row("accept", 2, label_hash="b"), row("not_lesion", 3)], "not_lesion"),
    ],
)
def test_the_newest_decision_that_was_not_taken_back_counts(rows: list[dict[str, str]], word: str | None) -> None:
    assert {key: found["decision"] for key, found in newest(rows).items()} == ({("e00", "f001"): word} if word else {})


EVENTS = st.one_of(
    st.builds(row, st.sampled_from(sorted(DECISIONS)), st.integers(0, 5), st.sampled_from(["Roe", "Doe"])),
    st.builds(back, st.integers(0, 5), st.integers(0, 5), st.sampled_from(["Roe", "Doe"])),
)


@given(st.lists(EVENTS, max_size=8, unique_by=lambda r: r["time"]), st.randoms())
def test_files_may_come_in_any_order(rows: list[dict[str, str]], random: Any) -> None:
    mixed = rows.copy()
    random.shuffle(mixed)
    assert newest(mixed) == newest(rows)


@pytest.mark.parametrize("word", DECISIONS)
def test_every_room_keeps_out_the_same_labels(word: str, tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 2)
    write_decisions(work / "decisions.csv", [row("accept", 1), row(word, 2), row("unsure", 3), back(4, of=3)])
    out = word in KEPT_OUT
    assert kept_out(decisions_of(work)) == ({("e00", "f001"): word} if out else {})
    taught = {(e.exam_id, x.finding_id) for e in read_exams(work) for x in e.examples}
    chosen = select(work)
    exported = {(e, lesion.finding_id) for e, exam in chosen.exams.items() for lesion in exam.lesions}
    assert (("e00", "f001") not in taught) == (("e00", "f001") not in exported) == out
    assert ("f001" in verdicts_of(decisions_of(work)).kept_out("e00")) == out
    assert chosen.decided == decided(word) == (word != "unsure")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("maybe", 1), "line 3: unknown decision 'maybe'"),
        (row("accept", 1, time="noon"), "line 3: 'noon' is no time"),
        (row(RETRACT, 1, reason="slip"), "line 3: 'slip' is no time"),
    ],
)
def test_what_is_no_decision_is_named_and_not_passed_over(bad: dict[str, str], message: str, tmp_path: Path) -> None:
    write_decisions(tmp_path / "decisions.csv", [row("accept", 1), bad])
    with pytest.raises(SchemaError, match=message):
        decisions_of(tmp_path)
