"""`petground second-reading`: its table, its resume, and what a reading of other text is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.commands import second_reading as command
from petground.pipeline.executors import executor
from petground.pipeline.extraction import extract_reports
from petground.pipeline.files import write_csv
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table
from petground.pipeline.second_readings import read_second_reading, report_hash, with_second_reading

REPORTS = [
    {"exam_id": "e1", "report_text": "FINDINGS: Left axillary node, SUVmax 5.5, slice 104. Liver SUV 2.1, slice 9."},
    {"exam_id": "e2", "report_text": "No uptake."},
    {"exam_id": "e3", "report_text": ""},
]


class Reader:
    """Answers with the first SUV and the last slice that the schema admits; nothing on the liver."""

    revision = "abc"

    def __init__(self) -> None:
        self.asked = 0

    def answers(self, questions: Sequence[Any]) -> Iterator[Any]:
        for question in questions:
            self.asked += 1
            pair = question.schema["properties"]["pairs"]["items"]["properties"]
            liver = "Sentence: Liver" in question.user
            found = [] if liver else [{"suv": pair["suv"]["enum"][0], "slice": pair["slice"]["enum"][-1]}]
            yield {"pairs": found}


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    made = Reader()
    monkeypatch.setattr(command, "_load", lambda settings: made)
    return made


def test_table_and_resume(tmp_path: Path, reader: Reader) -> None:
    pytest.importorskip("llguidance")
    write_csv(tmp_path / "reports.csv", REPORTS)
    for _ in range(2):
        assert command.second_reading(tmp_path / "reports.csv", tmp_path / "out", "tiny") == 0
    assert reader.asked == 2  # the second run found everything
    rows = read_table(tmp_path / "out/second_reading.parquet", "second_reading")
    assert [(r["exam_id"], r["suv"], r["slice"], r["revision"]) for r in rows] == [
        ("e1", 5.5, 104, "abc"),
        ("e1", None, None, "abc"),
    ]
    read = read_second_reading(tmp_path / "out/second_reading.parquet")
    digest, sentences = read["e1"]
    assert digest == report_hash(REPORTS[0]["report_text"])
    assert [pairs for _, _, pairs in sentences] == [((5.5, 104),), ()]
    assert "axillary" not in (tmp_path / "out/second_reading.parquet").read_bytes().decode("latin-1")


def test_bad_settings_and_models_are_named(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    write_csv(tmp_path / "reports.csv", REPORTS)
    with pytest.raises(ConfigError, match="batch-size"):
        command.second_reading(tmp_path / "reports.csv", tmp_path / "out", "tiny", batch_size=0)
    with pytest.raises(ConfigError, match="no causal language model"):
        command.second_reading(tmp_path / "reports.csv", tmp_path / "out", str(tmp_path), offline=True)
    with pytest.raises(InputError):
        read_second_reading(tmp_path / "none.parquet")


def test_only_what_both_read_is_labelled(tmp_path: Path, reader: Reader) -> None:
    pytest.importorskip("llguidance")
    text = "FINDINGS: Left axillary node, SUVmax 5.5, slice 104. Liver metastasis, SUVmax 7.1, slice 90."
    write_csv(tmp_path / "reports.csv", [{"exam_id": "e1", "report_text": text}])
    export = open_export(tmp_path / "reports.csv")
    command.second_reading(tmp_path / "reports.csv", tmp_path / "out", "tiny")
    agreed = with_second_reading(export, tmp_path / "out/second_reading.parquet")
    with executor(workers=1) as run:
        for given, fates in ((agreed, {None: 1, "disagreement": 1}), (export, {None: 2})):
            extracted = extract_reports(given, tmp_path / "out", run, lambda *_: None)
            found = [finding for _, findings in extracted.exams() for _, finding in findings]
            assert Counter(finding.reason for finding in found) == fates
    write_csv(tmp_path / "reports.csv", [{"exam_id": "e1", "report_text": text + " Addendum."}])
    with pytest.raises(InputError, match="1 reports have changed"):
        with_second_reading(open_export(tmp_path / "reports.csv"), tmp_path / "out/second_reading.parquet")
