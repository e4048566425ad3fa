"""Physicians' decisions: what was decided comes back whole, and counts in what is written after."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from review_work import hash_of

from petground.labeling.errors import ConfigError, InputError, PetgroundError, SchemaError
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline import cli
from petground.pipeline.commands.review import export, import_decisions
from petground.pipeline.decided import COLUMNS
from petground.pipeline.review.decisions import (
    merge_decisions,
    parse_decisions,
    read_decisions,
    read_sheet,
    write_decisions,
)
from petground.pipeline.review.pack import Outcome
from petground.pipeline.schemas import read_table, write_table

GOOD = {
    "exam_id": "e1", "finding_id": "f001", "decision": "accept", "reason": 'said "so", and\tmore; =1+1',
    "reviewer": "Doe", "time": "2024-01-02T10:00:00.000Z", "version": "0.1.0", "label_hash": "abc",
}  # fmt: skip


def sheet(path: Path, *rows: dict[str, str]) -> Path:
    """A decisions CSV as the page writes it."""
    quoted = [",".join('"' + row[c].replace('"', '""') + '"' for c in COLUMNS) for row in rows]
    path.write_text("\n".join([",".join(COLUMNS), *quoted]) + "\n", encoding="utf-8")
    return path


def test_import_adds_and_never_replaces(work: Path, tmp_path: Path) -> None:
    import_decisions(work, [sheet(tmp_path / "a.csv", GOOD)])
    second = {**GOOD, "decision": "unsure", "time": "2024-01-03T10:00:00Z"}
    import_decisions(work, [sheet(tmp_path / "b.csv", GOOD, second)])
    (tmp_path / "c.jsonl").write_text(json.dumps({**GOOD, "reviewer": "Roe"}) + "\n", encoding="utf-8")
    import_decisions(work, [tmp_path / "c.jsonl"])
    import_decisions(work, [work / "decisions.csv"])
    kept = read_decisions(work / "decisions.csv", [("e1", "f001")])
    assert kept == [GOOD, second, {**GOOD, "reviewer": "Roe"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finding_id": "f999"}, "line 3: no finding 'f999' of exam 'e1'"),
        ({"exam_id": "e7"}, "line 3: no finding 'f001' of exam 'e7'"),
        ({"decision": "maybe"}, "line 3: unknown decision 'maybe'"),
        ({"reviewer": ""}, "line 3: no reviewer"),
        ({"time": "yesterday"}, "line 3: 'yesterday' is no time"),
        ({"time": "2999-01-02T10:00:00Z"}, "line 3: '2999-01-02T10:00:00Z' is in the future"),
        ({"reason": "x" * 10_001}, "line 3: reason has 10001 characters"),
    ],
)
def test_bad_row_stops_the_import_before_anything_is_written(
    change: dict[str, str], message: str, work: Path, tmp_path: Path
) -> None:
    path = sheet(tmp_path / "d.csv", GOOD, {**GOOD, **change})
    with pytest.raises(SchemaError, match=message):
        import_decisions(work, [path])
    assert not (work / "decisions.csv").exists()


@pytest.mark.parametrize(("minutes", "zone", "taken"), [(3, "Z", True), (8, "Z", False), (13 * 60, "", True)])
def test_clocks_may_differ_a_little_and_a_time_without_zone_may_be_local(
    minutes: int, zone: str, taken: bool, work: Path, tmp_path: Path
) -> None:
    time = (datetime.now(timezone.utc) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S") + zone
    path = sheet(tmp_path / "d.csv", {**GOOD, "time": time})
    if taken:
        assert import_decisions(work, [path]) == 0
    else:
        with pytest.raises(SchemaError, match="in the future"):
            import_decisions(work, [path])


@given(st.text(), st.sampled_from([".csv", ".jsonl"]))
def test_any_text_is_read_or_refused(text: str, suffix: str) -> None:
    with contextlib.suppress(PetgroundError):
        parse_decisions(text, Path("d" + suffix), [("e1", "f001")])


@given(st.text(max_size=40), st.sampled_from([".csv", ".jsonl"]))
def test_a_reason_that_is_taken_is_kept_as_it_is(reason: str, suffix: str) -> None:
    row = {**GOOD, "reason": reason}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"d{suffix}"
        if suffix == ".csv":
            write_decisions(path, [row])
        else:
            path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        try:
            rows = read_decisions(path, [("e1", "f001")])
        except SchemaError:
            assert "\0" in reason
            return
        write_decisions(Path(folder) / "kept.csv", rows)
        assert read_sheet(Path(folder) / "kept.csv") == rows
        assert rows[0]["reason"] == reason.strip()


def test_files_that_are_no_decisions_are_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no decisions"):
        import_decisions(work, [tmp_path / "none.csv"])
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column exam_id"):
        import_decisions(work, [tmp_path / "x.csv"])
    (tmp_path / "x.jsonl").write_text("{\n")
    with pytest.raises(SchemaError, match="line 1: not JSON"):
        import_decisions(work, [tmp_path / "x.jsonl"])
    (tmp_path / "y.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        import_decisions(work, [tmp_path / "y.csv"])


def test_files_of_several_exams_come_in_together_or_not_at_all(work: Path, tmp_path: Path) -> None:
    findings = read_table(work / "findings.parquet", "findings")
    write_table(work / "findings.parquet", "findings", [*findings, {**findings[0], "exam_id": "e2"}])
    one = sheet(tmp_path / "decisions_e1.csv", GOOD)
    two = sheet(tmp_path / "decisions_e2 (1).csv", {**GOOD, "exam_id": "e2", "decision": "unsure"})
    (tmp_path / "thesis.csv").write_text("not of a page")
    blank = sheet(tmp_path / "blank.csv", {**GOOD, "decision": ""})
    assert cli.main(["review", "import", str(work), str(one), str(blank)]) == 1
    assert not (work / "decisions.csv").exists()
    assert cli.main(["review", "import", str(work), str(one), str(two)]) == 0
    assert [r["exam_id"] for r in read_sheet(work / "decisions.csv")] == ["e1", "e2"]
    (work / "decisions.csv").unlink()
    assert cli.main(["review", "import", str(work), str(tmp_path)]) == 0
    assert [r["exam_id"] for r in read_sheet(work / "decisions.csv")] == ["e1", "e2"]


def test_the_blank_sheet_of_an_export_is_refused_with_the_way_out(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(work, tmp_path / "out")
    for given_ in (tmp_path / "out/decisions.csv", tmp_path / "out", work / "labels"):
        assert cli.main(["review", "import", str(work), str(given_)]) == 1
        assert "import WORK ~/Downloads/decisions_*.csv" in capsys.readouterr().err


@given(st.lists(st.fixed_dictionaries({c: st.sampled_from(["a", "b"]) for c in COLUMNS}), max_size=6))
def test_merging_keeps_old_rows_first_and_all_new_ones(rows: list[dict[str, str]]) -> None:
    merged = merge_decisions(rows[:2], rows[2:])
    assert merged[: len(rows[:2])] == rows[:2]
    assert all(row in merged for row in rows)
    assert merge_decisions(merged, rows[2:]) == merged


def test_pack_of_a_dicom_exam_has_seg_and_sr(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr(
        "petground.pipeline.review.dicom_out.write_dicom_objects", lambda case, folder, reviewer: written.append(folder)
    )
    (work / "exams/e1/source.json").write_text(json.dumps({"source": "dicom", "folder": "x"}))
    assert export(work, tmp_path / "out", reviewer="Doe^Jane") == 0
    assert written == [tmp_path / "out/e1"]
    assert 'href="e1/seg.dcm"' in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def judged(work: Path, *rows: tuple[str, str, str]) -> None:
    """WORK/decisions.csv with (decision, reviewer, day) on the label of e1 as it is."""
    hash_now = hash_of(work, 0)
    write_decisions(
        work / "decisions.csv",
        [
            {**GOOD, "decision": d, "reviewer": who, "time": f"2024-01-{day}T10:00:00Z", "label_hash": hash_now}
            for d, who, day in rows
        ],
    )


@pytest.fixture
def packed(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str | None]]:
    """What SEG and SR of e1 would be made of at each export: ids of findings, person observer."""
    made: list[tuple[list[str], str | None]] = []

    def write(case: Any, folder: Path, reviewer: str | None) -> None:
        made.append(([i.finding_id for i in case.items if i.mask is not None], reviewer))

    monkeypatch.setattr("petground.pipeline.review.dicom_out.write_dicom_objects", write)
    (work / "exams/e1/source.json").write_text(json.dumps({"source": "dicom", "folder": "x", "pet_series_uid": None}))
    return made


@pytest.mark.parametrize("word", ["wrong_lesion", "not_lesion", "unsure"])
def test_label_whose_newest_decision_keeps_it_out_leaves_in_no_object(
    word: str, work: Path, tmp_path: Path, packed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    judged(work, (word, "Roe", "03"), ("accept", "Doe", "02"))
    assert export(work, tmp_path / "out", reviewer="Doe") == 0
    assert packed == []
    said = f"not in SEG and SR as a physician decided: f001 ({word.replace('_', ' ').replace('not l', 'not a l')})"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "out/index.html").read_text(encoding="utf-8")
    judged(work, (word, "Roe", "03"), ("accept", "Doe", "04"))
    export(work, tmp_path / "out")
    assert packed == [(["f001"], None)]


def test_a_label_made_anew_after_its_rejection_stays_out_as_it_does_in_training(
    work: Path, tmp_path: Path, packed: list[Any]
) -> None:
    write_decisions(work / "decisions.csv", [{**GOOD, "decision": "not_lesion", "label_hash": "of an earlier label"}])
    export(work, tmp_path / "out")
    assert packed == []


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], False),
        ([("accept", "Doe, Jane", "02")], True),
        ([("accept", "Roe", "02")], False),
        ([("accept", "doe jane", "02"), ("adjust", "Doe, Jane", "03")], False),
        ([("unsure", "Jane Doe", "02"), ("accept", "Jane Doe", "03"), ("adjust", "Roe", "04")], True),
    ],
)
def test_a_person_observes_only_what_that_person_accepted(
    rows: list[tuple[str, str, str]], named: bool, work: Path, tmp_path: Path, packed: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    judged(work, *rows)
    assert export(work, tmp_path / "out", reviewer="Doe^Jane") == 0
    assert packed == [(["f001"], "Doe^Jane" if named else None)]
    assert ("has not accepted every label (e1)" in capsys.readouterr().out) != named


def test_nothing_of_an_earlier_export_stays(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(work, out)
    (out / "e1").mkdir()
    for name in ("seg.dcm", "sr.dcm", "rwvm.dcm", "mine.txt"):
        (out / "e1" / name).write_text("old")
    (out / "e9.html").write_text("another's")
    (work / "labels/e1/f001.nii.gz").unlink()
    assert export(work, out) == 3
    assert [p.name for p in (out / "e1").iterdir()] == ["mine.txt"]
    assert not (out / "e1.html").exists()
    assert (out / "e9.html").exists()


def test_objects_of_another_series_cost_seg_and_sr_only(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def read(folder: Path, pet: Volume, *, case: str, series_uid: str | None) -> None:
        asked.append(series_uid)
        raise InputError("another PET series", case=case)

    monkeypatch.setattr("petground.pipeline.review.dicom_out.read_source", read)
    for uid in ("1.2.3", None):
        source = {"source": "dicom", "folder": "x", "pet_series_uid": uid}
        (work / "exams/e1/source.json").write_text(json.dumps(source))
        assert export(work, tmp_path / "out") == 3
        assert (tmp_path / "out/e1.html").is_file()
    assert asked == ["1.2.3", None]


def test_site_of_the_labels_is_used_and_no_other(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Site] = []

    def pack(tables: Any, out: Path, site: Site, *_: Any) -> Outcome:
        used.append(site)
        return Outcome(0, 0, ())

    monkeypatch.setattr("petground.pipeline.commands.review.write_pack", pack)
    given = tmp_path / "site.yaml"
    given.write_text("slice_origin: feet\n")
    export(work, tmp_path / "out", site=given)
    kept = Site(slice_origin="feet", slice_tolerance=2)
    (work / "site.json").write_text(json.dumps(asdict(kept)))
    export(work, tmp_path / "out")
    assert used == [Site(slice_origin="feet"), kept]
    with pytest.raises(
        ConfigError, match=r"site\.yaml is not the site that the labels were made with: slice_tolerance"
    ):
        export(work, tmp_path / "out", site=given)
    given.write_text("slice_origin: feet\nslice_tolerance: 2\n")
    export(work, tmp_path / "out", site=given)
    (work / "site.json").write_text("{")
    with pytest.raises(InputError, match=r"site\.json"):
        export(work, tmp_path / "out")
