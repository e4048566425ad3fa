"""DICOM dates and times."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from petground.pipeline.dicom.times import parse_datetime, parse_time


@given(st.text(max_size=30), st.one_of(st.none(), st.from_regex(r"[+-][0-9]{4}", fullmatch=True)))
@settings(max_examples=200, deadline=None)
def test_times_of_any_text_are_times_or_missing(value: str, zone: str | None) -> None:
    parse_time(value)
    parse_datetime(value, zone)
    parse_datetime(f"20240305{value}", zone)
    parse_datetime(f"00010101000000{zone}", zone)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_written_time_is_read(moment: datetime) -> None:
    assert parse_datetime(moment.strftime("%Y%m%d%H%M%S.%f")) == moment
    assert parse_time(moment.strftime("%H%M%S.%f")) == moment.time()


def test_times_of_dicom() -> None:
    assert str(parse_time("095947.25")) == "09:59:47.250000"
    assert str(parse_time("0959")) == "09:59:00"
    assert str(parse_time("09")) == "09:00:00"
    assert parse_time("2561") is None
    assert parse_time("") is None
    assert str(parse_datetime("20240305100000.000000")) == "2024-03-05 10:00:00"
    assert str(parse_datetime("20240305100000+0100")) == "2024-03-05 10:00:00"
    assert str(parse_datetime("20240305100000+0000", "+0100")) == "2024-03-05 11:00:00"
    assert str(parse_datetime("20240305003000+0100", "-0200")) == "2024-03-04 21:30:00"
    assert parse_datetime("20240305") is None
    assert parse_datetime("20241305100000") is None
