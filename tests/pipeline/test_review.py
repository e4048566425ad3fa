"""The review pack: what a physician sees is where it must be, and what he decides comes back whole."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petground.labeling.errors import ConfigError, GeometryError, InputError, SchemaError
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.commands.review import export, import_decisions
from petground.pipeline.nifti import write_nifti
from petground.pipeline.review.decisions import COLUMNS, label_hash, merge_decisions, read_decisions, write_decisions
from petground.pipeline.review.judge import alarms
from petground.pipeline.review.load import load_case, open_work
from petground.pipeline.review.marks import mark_sentence, mark_sentences
from petground.pipeline.review.pack import Outcome
from petground.pipeline.review.page import file_name
from petground.pipeline.review.panels import SUV_CEILING, Viewer
from petground.pipeline.schemas import write_table

SHAPE = (40, 30, 24)
HOT = (27, 20, 17)  # right of the midline, in front, above the middle, on the RAS grid below
RAS = np.diag([4.0, 4.0, 5.0, 1.0])
RAS[:3, 3] = -78.0, -58.0, -60.0


def volumes(
    flip: tuple[bool, bool, bool] = (False, False, False),
) -> tuple[Volume, Volume, np.ndarray, tuple[int, ...]]:
    """A body with one hot ball, its CT, the ball's mask and its centre; any axis of the stored array reversed."""
    i, j, k = np.indices(SHAPE)
    body = ((i - 19.5) / 16) ** 2 + ((j - 14.5) / 11) ** 2 <= 1
    ball = ((i - HOT[0]) ** 2 + (j - HOT[1]) ** 2 + (k - HOT[2]) ** 2) <= 5
    suv = np.where(body, 1.0, 0.0) + np.where(ball, 8.0, 0.0)
    suv[HOT] = 12.3
    hu = np.where(body, 40.0, -1000.0)
    affine, hot = RAS.copy(), list(HOT)
    for axis, turned in enumerate(flip):
        if turned:
            suv, hu, ball = (np.flip(a, axis) for a in (suv, hu, ball))
            affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
            affine[:3, axis] *= -1
            hot[axis] = SHAPE[axis] - 1 - hot[axis]
    pet = Volume(np.ascontiguousarray(suv, dtype=np.float32), affine, "SUVbw")
    ct = Volume(np.ascontiguousarray(hu, dtype=np.float32), affine, "HU")
    return pet, ct, np.ascontiguousarray(ball), tuple(hot)


SENTENCE = "Right <axilla> & node, SUVmax 12.3, slice 7, previously 12.3 on 7 Jan."


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with a labelled exam, its ambiguous and excluded findings, and an exam that failed."""
    folder = tmp_path / "work"
    pet, ct, ball, hot = volumes()
    write_nifti(folder / "exams/e1/pet.nii.gz", pet)
    write_nifti(folder / "exams/e1/ct.nii.gz", ct)
    write_nifti(folder / "labels/e1/f001.nii.gz", pet.like(ball.astype(np.uint8), "label"))
    common = {"exam_id": "e1", "section": "FINDINGS", "suv_decimals": 1, "stage": "check", "status": "positive"}
    findings = [
        {**common, "finding_id": "f001", "sentence": SENTENCE, "suv": 12.3, "slice": 7, "laterality": "right",
         "site": "axillary node", "span_start": 30, "span_end": 34},
        {**common, "finding_id": "f002", "sentence": "Node, SUV 5.0, slice 9.", "suv": 5.0, "slice": 9,
         "span_start": 90, "span_end": 93, "status": "excluded", "reason": "ambiguous_match", "stage": "match"},
        {**common, "finding_id": "f003", "sentence": "Liver SUV 2.9.", "suv": 2.9, "span_start": 120, "span_end": 123,
         "status": "excluded", "reason": "reference", "stage": "extract"},
    ]  # fmt: skip
    label = {
        "exam_id": "e1", "finding_id": "f001", "sentence": SENTENCE, "suv_reported": 12.3, "slice_reported": 7,
        "suv_measured": 12.3, "slice_measured": 7, "voxel_i": hot[0], "voxel_j": hot[1], "voxel_k": hot[2],
        "volume_ml": float(ball.sum()) * pet.voxel_ml, "confidence": 0.9, "mask_path": "labels/e1/f001.nii.gz",
        "laterality": "right", "method": "isodata", "threshold": 4.9, "warnings": "", "provenance": "{}",
    }  # fmt: skip
    candidate = {"exam_id": "e1", "suv": 5.0, "score": 0.5, "slice_distance": 0, "evidence": "{}"}
    candidates = [
        {**candidate, "finding_id": f, "rank": r, "voxel_i": 20 + r, "voxel_j": 15, "voxel_k": 15}
        for f, r in (("f001", 0), ("f002", 0), ("f002", 1))
    ]
    exams = [
        {"exam_id": "e1", "status": "ok", "source": "nifti", "tracer": "FDG", "pet_path": "exams/e1/pet.nii.gz",
         "ct_path": "exams/e1/ct.nii.gz", "slices": SHAPE[2]},
        {"exam_id": "e2", "status": "failed", "reason": "no_pet", "detail": "no PET image series"},
    ]  # fmt: skip
    for name, rows in (("exams", exams), ("findings", findings), ("labels", [label]), ("candidates", candidates)):
        write_table(folder / f"{name}.parquet", name, rows)
    return folder


def hash_of(work: Path, number: int) -> str:
    """The label hash of the nth item of e1."""
    tables = open_work(work)
    item = load_case(tables, tables.exams[0], Site()).items[number]
    return label_hash(item.finding, item.mask)


def picture(uri: str) -> np.ndarray:
    """Grey values of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


FLIPS = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]


@pytest.mark.parametrize("flip", FLIPS)
def test_pictures_show_the_hot_voxel_where_it_is_in_the_patient(flip: tuple[bool, bool, bool]) -> None:
    pet, ct, ball, hot = volumes(flip)
    viewer = Viewer(pet, ct)
    for view, uri in (
        ("axial", viewer.pet_slice(hot[2])),
        ("coronal", viewer.pet_mip("coronal")),
        ("sagittal", viewer.pet_mip("sagittal")),
    ):
        grey = picture(uri)
        row, column = np.unravel_index(int(grey.argmax()), grey.shape)
        frame = viewer.frame(view)
        x, y = viewer.point_mm(view, hot)
        assert (row, column) == (int(y / frame.height_mm * frame.rows), int(x / frame.width_mm * frame.columns)), view
        left, above = column < grey.shape[1] / 2, row < grey.shape[0] / 2
        assert above, f"{view}: in front (axial) or to the head is up"
        assert left, f"{view}: the patient's right (axial, coronal) and front (sagittal) are on the left"
        assert grey[row, column] == round(255 * np.sqrt(12.3 / SUV_CEILING))
        numbers = [
            float(n) for n in re.findall(r"-?\d+\.\d+", viewer.outline(ball, view, hot[2] if view == "axial" else None))
        ]
        assert min(numbers) > 0
        assert abs(x - _middle(viewer.outline(ball, view), "x")) < 1.0
        assert abs(y - _middle(viewer.outline(ball, view), "y")) < 1.0


def _middle(path: str, axis: str) -> float:
    xs, ys = [], []
    for x, y, kind, end in re.findall(r"M([\d.]+) ([\d.]+)([HV])([\d.]+)", path):
        xs += [float(x), float(end) if kind == "H" else float(x)]
        ys += [float(y), float(end) if kind == "V" else float(y)]
    values = xs if axis == "x" else ys
    return (min(values) + max(values)) / 2


def test_ct_on_its_own_grid_is_looked_up_in_millimetres() -> None:
    pet, _, _, hot = volumes()
    hu = np.full((80, 60, 30), -1000.0, dtype=np.float32)
    affine = np.diag([-2.0, 2.0, 4.5, 1.0])  # reversed, finer and shifted against the PET
    affine[:3, 3] = 79.0, -59.0, -62.0
    at = np.rint(np.linalg.inv(affine) @ [*pet.to_world_mm(hot), 1.0])[:3].astype(int)
    hu[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2, at[2] - 1 : at[2] + 2] = 240.0
    viewer = Viewer(pet, Volume(hu, affine, "HU"))
    grey = picture(viewer.ct_slice(hot[2], pixel_mm=1.0, quality=95) or "")
    rows, columns = np.nonzero(grey > 128)
    x, y = viewer.point_mm("axial", hot)
    assert abs(columns.mean() + 0.5 - x) < 1.5
    assert abs(rows.mean() + 0.5 - y) < 1.5


def test_sentence_marks_stand_on_the_right_numbers() -> None:
    def marked(sentence: str, suv: str, number: int | None, nth: int = 0) -> list[tuple[str, str, int]]:
        pieces = mark_sentence(sentence, suv, number, nth=nth)
        assert "".join(p[0] for p in pieces) == sentence
        starts = np.cumsum([0] + [len(p[0]) for p in pieces])
        return [(text, kind, int(start)) for (text, kind), start in zip(pieces, starts, strict=False) if kind]

    assert [m[:2] for m in marked("SUVmax 5.2 (slice 104).", "5.2", 104)] == [("5.2", "suv"), ("104", "slice")]
    assert marked("15.2 mm node, SUV 5.2, image 3:52", "5.2", 52) == [("5.2", "suv", 18), ("52", "slice", 31)]
    assert marked("SUV 5,2 auf Schicht 7", "5.2", 7)[0][:2] == ("5,2", "suv")
    assert marked("SUV 5.25 and 5.2.1", "5.2", None) == []
    assert marked("node 7 mm with 7 cm, SUV 3.0", "3.0", 7) == [("3.0", "suv", 25)]
    assert marked("SUV 4.0 (12) and SUV 4.0 (slice 13)", "4.0", 13, nth=1)[0][2] == 21


def test_equal_values_of_one_sentence_are_told_apart_by_their_spans() -> None:
    sentence = "Left SUV 4.0, slice 12; right SUV 4.0, slice 19."
    rows = [
        {"finding_id": f, "sentence": sentence, "suv": 4.0, "suv_decimals": 1, "slice": s, "span_start": at}
        for f, s, at in (("b", 19, 60), ("a", 12, 40))
    ]
    pieces = mark_sentences(rows)
    assert pieces["a"][1] == ("4.0", "suv")
    assert "".join(t for t, _ in pieces["b"][:1]) == "Left SUV 4.0, slice 12; right SUV "


@given(st.text(max_size=60), st.sampled_from(["5.2", "104", "0.8", ""]), st.one_of(st.none(), st.integers(0, 300)))
def test_marking_never_changes_the_sentence(sentence: str, suv: str, number: int | None) -> None:
    assert "".join(text for text, _ in mark_sentence(sentence, suv, number)) == sentence


def test_export_writes_pages_that_load_nothing(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export(work, out) == 0
    page = (out / "e1.html").read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    assert not re.search(r"(?:src|href)=\"(?!data:|#|index\.html)", page)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "<axilla>" not in page
    assert "Right &lt;axilla&gt; &amp; node" in page
    assert '<mark class="suv">12.3</mark>' in page
    assert '<mark class="slice">7</mark>' in page
    assert page.count('<article class="finding"') == 2
    assert "reference tissue: liver" in page
    assert "several equally good maxima" in html.unescape(page).lower()
    index = (out / "index.html").read_text(encoding="utf-8")
    assert 'href="e1.html"' in index
    assert "failed: no PET image series" in index
    assert not (out / "e2.html").exists()
    rows = (out / "decisions.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == ",".join(COLUMNS)
    assert [r.split(",")[1] for r in rows[1:]] == ["f001", "f002"]


def test_exam_that_has_nothing_to_judge_still_says_why(work: Path, tmp_path: Path) -> None:
    tables = open_work(work)
    tables.findings.append({**tables.findings[2], "exam_id": "e3", "sentence": "Prior SUV 3.3.", "reason": "prior"})
    write_table(work / "findings.parquet", "findings", tables.findings)
    write_table(work / "exams.parquet", "exams", [*tables.exams, {"exam_id": "e3", "status": "ok"}])
    assert export(work, tmp_path / "out") == 0
    page = (tmp_path / "out/e3.html").read_text(encoding="utf-8")
    assert "value of an earlier exam" in page
    assert "No finding of this exam awaits judgement" in page


def test_every_picture_has_a_text_for_those_who_cannot_see_it(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path / "out")
    page = (tmp_path / "out/e1.html").read_text(encoding="utf-8")
    pictures = re.findall(r"<svg viewBox[^>]*>", page)
    assert len(pictures) >= 8
    assert all(re.search(r'role="img" aria-label="[^"]{10,}"', p) for p in pictures)


def test_filled_sheet_survives_another_export(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(work, out)
    sheet = out / "decisions.csv"
    head, first, second = sheet.read_text(encoding="utf-8").splitlines()
    fields = first.split(",")
    fields[2:6] = ["accept", "", "Doe", "2024-01-02T10:00:00Z"]
    sheet.write_text("\n".join([head, ",".join(fields), second]) + "\n", encoding="utf-8")
    export(work, out)
    assert [line.split(",")[1:3] for line in sheet.read_text(encoding="utf-8").splitlines()[1:]] == [
        ["f001", "accept"],
        ["f002", ""],
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_sheet_saved_by_a_european_excel_keeps_its_decisions(delimiter: str, work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(work, out)
    path = out / "decisions.csv"
    head, first, second = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    first[2:6] = ["wrong_lesion", "the node above, rather", "Doe", "2024-01-02T10:00:00Z"]
    text = "\r\n".join(delimiter.join(fields) for fields in (head, first, second)) + "\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    export(work, out)
    (row,) = read_decisions(path, [("e1", "f001"), ("e1", "f002")])
    assert (row["decision"], row["reason"]) == ("wrong_lesion", "the node above, rather")
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"exam_id,finding_id,decision\ne1,f001,accept\n", "no column reason"),
        (b"exam_id finding_id decision\n", "no column exam_id"),
        (",".join([*COLUMNS, "my notes"]).encode() + b"\n", "a column of its own: my notes"),
        (",".join(COLUMNS).encode() + b"\ne1,f001,accept\n", "line 2: not 8 fields"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_sheet_that_is_not_understood_is_not_overwritten(
    content: bytes, message: str, work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "decisions.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        export(work, out)
    assert (out / "decisions.csv").read_bytes() == content


def test_hash_depends_on_all_that_was_judged() -> None:
    pet, _, ball, _ = volumes()
    mask = pet.like(ball.astype(np.uint8), "label")
    told = {"sentence": "Right node, SUV 12.3.", "suv": 12.3, "slice": 7, "laterality": "right", "span_start": 30}
    changes = ({}, {"sentence": "Left node."}, {"suv": 12.4}, {"slice": 8}, {"laterality": None})
    for judged in (mask, None):
        assert len({label_hash({**told, **change}, judged) for change in changes}) == len(changes)
        assert label_hash({**told, "span_start": 99}, judged) == label_hash(told, judged)
    assert label_hash(told, mask) != label_hash(told, None)
    assert label_hash(told, pet.like(np.roll(ball, 1, axis=0).astype(np.uint8), "label")) != label_hash(told, mask)


def test_side_is_told_and_contradiction_shouted(work: Path) -> None:
    tables = open_work(work)
    tables.findings[0]["laterality"] = "left"
    case = load_case(tables, tables.exams[0], Site(midline_margin_mm=20.0))
    found = alarms(case, case.items[0], Site(midline_margin_mm=20.0))
    assert found[0]["level"] == "bad"
    assert "right of the body" in found[0]["text"]


def test_mask_on_another_grid_is_an_error_that_names_the_case(work: Path, tmp_path: Path) -> None:
    affine = RAS.copy()
    affine[2, 3] += 5.0
    write_nifti(work / "labels/e1/f001.nii.gz", Volume(volumes()[2].astype(np.uint8), affine, "label"))
    tables = open_work(work)
    with pytest.raises(GeometryError, match="e1/f001"):
        load_case(tables, tables.exams[0], Site())
    assert export(work, tmp_path / "out") == 3
    assert "no page: e1/f001" in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_a_header_that_highdicom_refuses_costs_seg_and_sr_only(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("PatientName Doe^Jane is not allowed")

    monkeypatch.setattr("petground.pipeline.review.dicom_out.read_source", refuse)
    (work / "exams/e1/source.json").write_text(json.dumps({"source": "dicom", "folder": str(tmp_path)}))
    assert export(work, tmp_path / "out") == 3
    assert (tmp_path / "out" / "e1.html").exists()
    told = " ".join(capsys.readouterr().out.split())
    assert "ValueError while writing DICOM" in told
    assert "Doe" not in told


def test_vanished_dicom_folder_costs_seg_and_sr_only(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "exams/e1/source.json").write_text(json.dumps({"source": "dicom", "folder": str(tmp_path / "gone")}))
    assert export(work, tmp_path / "out") == 3
    assert (tmp_path / "out/e1.html").is_file()
    assert not (tmp_path / "out/e1").exists()
    assert "DICOM folder is gone" in capsys.readouterr().out


def test_bad_folders_are_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no work folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"exams\.parquet"):
        export(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputError, match="no exam 'e9'"):
        export(work, tmp_path / "out", exams=["e9"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        export(work, tmp_path / "file" / "out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights do not bind this user")
def test_folder_without_right_to_write_is_named(work: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write"):
        export(work, tmp_path / "locked" / "out")


def test_file_names_are_safe_and_distinct() -> None:
    assert file_name("exam-1.2") == "exam-1.2"
    names = {file_name(i) for i in ("a/b", "a_b", "a b", "../x", ".x", "ä", "index")} | {"index"}
    assert len(names) == 8
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", n) for n in names)


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
    import_decisions(work, sheet(tmp_path / "a.csv", GOOD))
    second = {**GOOD, "decision": "unsure", "time": "2024-01-03T10:00:00Z"}
    import_decisions(work, sheet(tmp_path / "b.csv", GOOD, second))
    (tmp_path / "c.jsonl").write_text(json.dumps({**GOOD, "reviewer": "Roe"}) + "\n", encoding="utf-8")
    import_decisions(work, tmp_path / "c.jsonl")
    import_decisions(work, work / "decisions.csv")
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
    ],
)
def test_bad_row_stops_the_import_before_anything_is_written(
    change: dict[str, str], message: str, work: Path, tmp_path: Path
) -> None:
    path = sheet(tmp_path / "d.csv", GOOD, {**GOOD, **change})
    with pytest.raises(SchemaError, match=message):
        import_decisions(work, path)
    assert not (work / "decisions.csv").exists()


def test_files_that_are_no_decisions_are_named(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no decisions"):
        import_decisions(work, tmp_path / "none.csv")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column exam_id"):
        import_decisions(work, tmp_path / "x.csv")
    (tmp_path / "x.jsonl").write_text("{\n")
    with pytest.raises(SchemaError, match="line 1: not JSON"):
        import_decisions(work, tmp_path / "x.jsonl")
    (tmp_path / "y.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        import_decisions(work, tmp_path / "y.csv")


@given(st.lists(st.fixed_dictionaries({c: st.sampled_from(["a", "b"]) for c in COLUMNS}), max_size=6))
def test_merging_keeps_old_rows_first_and_all_new_ones(rows: list[dict[str, str]]) -> None:
    merged = merge_decisions(rows[:2], rows[2:])
    assert merged[: len(rows[:2])] == rows[:2]
    assert all(row in merged for row in rows)
    assert merge_decisions(merged, rows[2:]) == merged


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
CLICKS = """
document.querySelector("#reviewer").value = "Doe, Jane";
const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const cards = [...document.querySelectorAll("article.finding")];
const click = (card, word) => card.querySelector(`.decide [data-decide=${word}]`).click();
click(cards[0], "wrong_lesion"); press("1"); press("j"); press("2"); press("z");
cards[1].querySelector("[data-reason]").value = 'the "upper" one, slice 9';
click(cards[1], "unsure");
press("o");
document.body.dataset.progress = document.querySelector("#progress").textContent;
document.body.dataset.state = cards[0].querySelector("[data-state]").textContent;
URL.createObjectURL = (blob) => {
  blob.text().then((text) => { document.body.dataset[blob.type === "text/csv" ? "csv" : "jsonl"] = text; });
  return "#";
};
document.querySelector("#save-csv").click(); document.querySelector("#save-jsonl").click();
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page with")
def test_decisions_made_in_a_browser_come_back(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path / "out")
    page = tmp_path / "out/e1.html"
    text = page.read_text(encoding="utf-8")
    clean = _browse(page, tmp_path)
    assert "Refused to" not in clean[1], "the page's own rules let its own script run"
    assert "0 of 2 decided" in clean[0]
    open_rules = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    page.write_text(open_rules.replace("</body>", f"<script>{CLICKS}</script></body>"), encoding="utf-8")
    dom, _ = _browse(page, tmp_path)
    assert 'data-progress="2 of 2 decided"' in dom
    assert 'data-state="Accept · Doe, Jane"' in dom
    assert "no-outline" in dom
    found = {k: html.unescape(re.search(rf'data-{k}="([^"]*)"', dom)[1]) for k in ("csv", "jsonl")}  # type: ignore[index]
    (tmp_path / "d.csv").write_text(found["csv"], encoding="utf-8")
    (tmp_path / "d.jsonl").write_text(found["jsonl"], encoding="utf-8")
    import_decisions(work, tmp_path / "d.csv")
    rows = read_decisions(work / "decisions.csv", [("e1", "f001"), ("e1", "f002")])
    assert [(r["finding_id"], r["decision"], r["reason"]) for r in rows] == [
        ("f001", "accept", ""),
        ("f002", "unsure", 'the "upper" one, slice 9'),
    ]
    assert len(rows[0]["label_hash"]) == 16
    assert rows[1]["label_hash"] == hash_of(work, 1)
    events = [json.loads(line)["decision"] for line in found["jsonl"].splitlines()]
    assert events == ["wrong_lesion", "accept", "unsure"], "every step is kept, what was undone is not"


def _browse(page: Path, tmp_path: Path) -> tuple[str, str]:
    """(DOM after the scripts ran, log) of a page opened from its file."""
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr


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


@pytest.mark.parametrize("word", ["wrong_lesion", "not_lesion"])
def test_label_whose_newest_decision_rejects_it_leaves_in_no_object(
    word: str, work: Path, tmp_path: Path, packed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    judged(work, (word, "Roe", "03"), ("accept", "Doe", "02"))
    assert export(work, tmp_path / "out", reviewer="Doe") == 0
    assert packed == []
    said = f"rejected by a physician, not in SEG and SR: f001 ({word.replace('_', ' ').replace('not l', 'not a l')})"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "out/index.html").read_text(encoding="utf-8")
    judged(work, (word, "Roe", "03"), ("accept", "Doe", "04"))
    export(work, tmp_path / "out")
    assert packed == [(["f001"], None)]


def test_rejection_of_another_label_does_not_count(work: Path, tmp_path: Path, packed: list[Any]) -> None:
    write_decisions(work / "decisions.csv", [{**GOOD, "decision": "not_lesion"}])
    export(work, tmp_path / "out")
    assert packed == [(["f001"], None)]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], False),
        ([("accept", "Doe, Jane", "02")], True),
        ([("accept", "Roe", "02")], False),
        ([("accept", "doe jane", "02"), ("unsure", "Doe, Jane", "03")], False),
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
