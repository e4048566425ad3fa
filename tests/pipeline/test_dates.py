"""Study dates as they are written, and how far two are apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petground.labeling.errors import InputError
from petground.labeling.site import Site
from petground.pipeline.dates import days_apart, iso_date, mismatch_note, require_same_day


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-07-01", "2015-07-01"), ("20150701", "2015-07-01"), ("2015/7/1 08:30", "2015-07-01"),
        ("1-JUL-2015", "2015-07-01"), ("01 July 2015", "2015-07-01"), ("01-JUL-2015 08:30:00", "2015-07-01"),
        ("7/1/2015", None), ("01-XYZ-2015", None), ("2015", None), ("soon", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_iso_date(text: str | None, expected: str | None) -> None:
    assert iso_date(text) == expected


@pytest.mark.parametrize(
    ("stated", "imaged", "apart"),
    [
        ("2021-03-04", "20210304", 0),
        ("2021-03-05", "2021-03-04", 1),
        ("2020-03-04", "2021-03-04", 365),
        ("2021-03-01", "2021-02-28", 1),
        ("4/3/2021", "2021-03-04", 0),  # day first
        ("3/4/2021", "2021-03-04", 0),  # month first
        ("3/4/2020", "2021-03-04", 335),  # the nearer of its meanings, and still another year
        ("2021-03", "2021-03-31", 0),
        ("2021", "2021-12-31", 0),
        ("2020", "2021-03-04", 63),
        ("13/13/2021", "2021-03-04", None),
        ("2021-02-30", "2021-03-04", None),
        ("last week", "2021-03-04", None),
        ("2021-03-04", None, None),
    ],
)
def test_days_apart(stated: str, imaged: str | None, apart: int | None) -> None:
    assert days_apart(stated, imaged) == days_apart(imaged, stated) == apart


def test_a_day_is_tolerated_and_the_site_can_say_otherwise() -> None:
    require_same_day("2021-03-05", "2021-03-04", Site())
    for site, stated in ((Site(), "2021-03-06"), (Site(study_date_tolerance_days=0), "2021-03-05")):
        with pytest.raises(InputError, match=r"days from the StudyDate.*check_study_date: false") as caught:
            require_same_day(stated, "2021-03-04", site)
        assert caught.value.reason == "study_date_mismatch"
        assert "2021" not in str(caught.value), "a date is patient data"
    require_same_day("1999-01-01", "2021-03-04", Site(check_study_date=False))
    require_same_day(None, "2021-03-04", Site())


def test_only_an_export_none_of_whose_dates_fit_is_told_of_shifted_dates() -> None:
    assert mismatch_note(0, 0) is None
    assert mismatch_note(5, 4) is None
    assert "none of 5 reports" in str(mismatch_note(5, 5))


@given(st.text(max_size=24), st.text(max_size=24))
def test_any_text_is_a_date_or_none(one: str, other: str) -> None:
    assert (days_apart(one, other) or 0) >= 0
