"""Values that are not simply the number printed: bounds, decimals across a blank, delayed images; their matching."""

from __future__ import annotations

import numpy as np
import pytest

from petground.labeling.extract import extract_findings
from petground.labeling.finding import WARNINGS
from petground.labeling.match import told_interval, value_excess


@pytest.mark.parametrize(
    ("words", "suv", "warning"),
    [
        ("SUVmax > 20", 20.0, "at_least"),
        ("SUVmax of at least 9.4", 9.4, "at_least"),
        ("at least SUVmax 9.4", 9.4, "at_least"),
        ("SUVmax exceeding 15", 15.0, "at_least"),
        ("SUVmax ≥ 9.4", 9.4, "at_least"),
        ("SUVmax of more than 9.4", 9.4, "at_least"),
        ("SUVmax 20+", 20.0, "at_least"),
        ("SUVmax < 3", 3.0, "at_most"),
        ("SUVmax of less than 3.0", 3.0, "at_most"),
        ("SUVmax 5. 4", 5.4, "decimal_split"),
        ("SUVmax 5.4", 5.4, None),
        ("SUVmax of approximately 5.4", 5.4, None),
        ("SUVmax up to 5.4", 5.4, None),
    ],
)
def test_bounds_and_split_decimals_are_flagged(words: str, suv: float, warning: str | None) -> None:
    (finding,) = extract_findings(f"Left hilar node on image 58 with {words}.")
    assert (finding.suv, finding.slice, finding.status) == (suv, 58, "positive")
    assert finding.warnings == ((warning,) if warning else ())
    assert set(finding.warnings) <= set(WARNINGS)


def test_a_bound_is_matched_on_one_side_only() -> None:
    (least,) = extract_findings("Left hilar node on image 58 with SUVmax > 20.")
    (most,) = extract_findings("Left hilar node on image 58 with SUVmax < 3.0.")
    (exact,) = extract_findings("Left hilar node on image 58 with SUVmax 20.")
    assert told_interval(least) == (19.5, np.inf)
    assert value_excess(34.0, least) == 0.0
    assert value_excess(18.5, least) == pytest.approx(1.0)
    assert value_excess(34.0, exact) == pytest.approx(13.5)
    assert value_excess(2.0, most) == 0.0
    assert value_excess(3.55, most) == pytest.approx(0.5)


def test_a_list_marker_is_no_decimal() -> None:
    text = "3. Left hilar node on image 58 with SUVmax 5. 4. Right hilar node on image 60 with SUVmax 6.1."
    assert [(f.suv, f.slice, f.laterality) for f in extract_findings(text)] == [(5.0, 58, "left"), (6.1, 60, "right")]


def test_one_finding_of_a_lesion_measured_twice() -> None:
    text = "Left hilar node: early SUVmax 5.1, delayed SUVmax 7.2 on slice 80."
    early, late = extract_findings(text)
    assert (early.suv, early.slice, early.reason) == (5.1, 80, None)
    assert (late.suv, late.status, late.reason) == (7.2, "excluded", "ambiguous")
