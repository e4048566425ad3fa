"""`petground extract`: what the reports say, without an image; a longer export reads only what is new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from petground.labeling.finding import Finding
from petground.pipeline import cli, extraction
from petground.pipeline.executors import guarded
from petground.pipeline.extraction import extract_reports, read_shard, shards
from petground.pipeline.reports import Report, open_export
from petground.pipeline.schemas import read_table

TEXT = "FINDINGS: Hypermetabolic left axillary node, SUVmax {suv}, axial slice {at}. Liver SUVmax 2.9."


def export(path: Path, count: int, *more: tuple[str, str]) -> Path:
    rows = [(f"e{n:04d}", TEXT.format(suv=round(3 + n % 50 / 10, 1), at=n % 200 + 1)) for n in range(count)]
    path.write_text("exam_id,report_text\n" + "".join(f'{i},"{t}"\n' for i, t in [*rows, *more]), encoding="utf-8")
    return path


def here(calls: list[str]) -> Any:
    """A runner in this process that notes its cases."""

    def run(function: Any, cases: Any) -> Any:
        for case, args in cases:
            calls.append(case)
            yield guarded(function, case, args)

    return run


def positives(folder: Path, reports: Path, calls: list[str]) -> dict[str, list[tuple[str, Finding]]]:
    folder.mkdir(exist_ok=True)
    found = extract_reports(open_export(reports), folder, here(calls), lambda *_: None)
    rows = {report.exam_id: findings for report, findings in found.exams(positive_only=True)}
    assert found.positive == sum(bool(findings) for findings in rows.values())
    found.rows.unlink()
    return rows


def test_a_folder_gets_tables_and_a_file_the_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = export(tmp_path / "r.csv", 3, ("e0001", "again"), ("", "no id"))
    words = ["extract", "--reports", str(reports), "--workers", "1", "--out"]
    assert cli.main([*words, str(tmp_path / "work")]) == 3
    found = read_table(tmp_path / "work" / "findings.parquet", "findings")
    assert [(r["exam_id"], r["finding_id"], r["suv"], r["slice"], r["status"], r["reason"]) for r in found] == [
        ("e0000", "f001", 3.0, 1, "positive", None),
        ("e0000", "f002", 2.9, None, "excluded", "reference"),
        ("e0002", "f001", 3.2, 3, "positive", None),
        ("e0002", "f002", 2.9, None, "excluded", "reference"),
    ]
    exams = {r["exam_id"]: (r["status"], r["reason"]) for r in read_table(tmp_path / "work" / "exams.parquet", "exams")}
    assert exams == {
        "e0000": ("ok", None),
        "e0001": ("failed", "duplicate_exam_id"),
        "e0002": ("ok", None),
        "row#5": ("failed", "no_exam_id"),
    }
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["mentions"] == 4
    assert cli.main([*words, str(tmp_path / "alone.parquet")]) == 3
    assert read_table(tmp_path / "alone.parquet", "findings") == found
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.parquet", "r.csv", "work"]
    assert "axillary" not in "".join(capsys.readouterr())


def test_findings_that_labels_stand_on_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "labels.parquet").write_bytes(b"")
    words = ["extract", "--reports", str(export(tmp_path / "r.csv", 1)), "--out", str(tmp_path / "work")]
    assert cli.main(words) == 1
    assert "petground label" in capsys.readouterr().err


def test_a_longer_export_reads_only_what_is_new(tmp_path: Path) -> None:
    calls: list[str] = []
    before = positives(tmp_path / "work", export(tmp_path / "r.csv", 600), calls)
    first = len(calls)
    assert 3 <= first <= 12
    assert positives(tmp_path / "work", tmp_path / "r.csv", calls) == before
    assert len(calls) == first, "nothing is read again"
    lines = export(tmp_path / "r.csv", 620).read_text().splitlines()
    lines.insert(1, 'new,"FINDINGS: Left hilar node, SUVmax 7.7, axial slice 9."')
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\n")
    after = positives(tmp_path / "work", tmp_path / "r.csv", calls)
    assert len(calls) - first <= 3, "a row at the head changes the first shard, not all"
    assert after.keys() == before.keys() | {"new"} | {f"e{n:04d}" for n in range(600, 620)}
    assert {name: after[name] for name in before} == before
    kept = len(list((tmp_path / "work" / "extract").iterdir()))
    assert kept <= first + 1, "shards of no use are taken away"


def test_shards_keep_order_and_bounds() -> None:
    reports = [Report(f"e{n}", "x" * (5_000_000 if n == 300 else 10), "p") for n in range(2000)]
    cut = list(shards(reports))
    assert [r for shard in cut for r in shard] == reports
    assert all(len(shard) <= 2 * extraction.SHARD for shard in cut)
    assert next(shard for shard in cut if reports[300] in shard)[-1] == reports[300], "a huge report ends its shard"


def test_a_report_that_kills_its_process_is_found_among_its_shard(tmp_path: Path) -> None:
    reports = export(tmp_path / "r.csv", 30, ("poison", "FINDINGS: SUVmax 4.4, slice 3."))
    out = tmp_path / "work"
    out.mkdir()
    alone = here([])

    def run(function: Any, cases: Any) -> Any:
        for case, args in cases:
            if any(exam_id == "poison" for exam_id, _ in args[1]):
                yield extraction.Outcome(case, reason="crashed", detail="its process died by SIGSEGV")
            else:
                yield from alone(function, [(case, args)])

    found = extract_reports(open_export(reports), out, run, lambda *_: None)
    assert found.failures == {"poison": ("extract", "crashed", "its process died by SIGSEGV")}
    rows = {report.exam_id: findings for report, findings in found.exams()}
    assert len(rows) == 31
    assert rows["poison"] == []
    assert all(len(findings) == 2 for name, findings in rows.items() if name != "poison")


def test_a_half_written_shard_is_read_again(tmp_path: Path) -> None:
    calls: list[str] = []
    before = positives(tmp_path / "work", export(tmp_path / "r.csv", 20), calls)
    (shard,) = (tmp_path / "work" / "extract").iterdir()
    assert len(read_shard(shard)) == 20
    shard.write_bytes(shard.read_bytes()[:-10])
    assert positives(tmp_path / "work", tmp_path / "r.csv", calls) == before
    assert len(calls) == 2


def test_denials_are_numbered_by_exam_and_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    denies = "FINDINGS: No avid hilar or left axillary nodes. Liver SUVmax 2.9.\nBones: No suspicious uptake."
    reports = export(tmp_path / "r.csv", 2, ("denies", denies), ("alike", denies))
    words = ["extract", "--reports", str(reports), "--workers", "1", "--out", str(tmp_path / "work")]
    assert cli.main(words) == 0
    rows = read_table(tmp_path / "work" / "denials.parquet", "denials")
    assert [(r["exam_id"], r["denial_id"], r["site"], r["laterality"], r["prompt"]) for r in rows] == [
        (exam, number, *told)
        for exam in ("denies", "alike")
        for number, *told in (
            ("d001", "hilar", None, "No avid hilar or left axillary nodes."),
            ("d001", "axillary", "left", "No avid hilar or left axillary nodes."),
            ("d002", "bones", None, "Bones: No suspicious uptake."),
        )
    ]
    assert "4 sentences deny" in capsys.readouterr().out
    assert json.loads((tmp_path / "work" / "summary.json").read_text())["denials"] == 4
    (shard,) = (tmp_path / "work" / "extract").iterdir()
    read = shard.stat().st_mtime_ns
    findings = read_table(tmp_path / "work" / "findings.parquet", "findings")
    assert [r["finding_id"] for r in findings] == ["f001", "f002", "f001", "f002", "f001", "f001"]
    assert cli.main(words) == 0
    assert read_table(tmp_path / "work" / "denials.parquet", "denials") == rows
    assert shard.stat().st_mtime_ns == read
