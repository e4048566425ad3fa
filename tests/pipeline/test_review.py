"""The review pack: what a physician sees is where it must be, and what he decides comes back whole."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from review_work import RAS, volumes

from petground.labeling.errors import GeometryError, InputError
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.commands.review import export
from petground.pipeline.decided import COLUMNS
from petground.pipeline.nifti import write_nifti
from petground.pipeline.review.decisions import label_hash, read_decisions
from petground.pipeline.review.judge import alarms
from petground.pipeline.review.load import load_case, open_work
from petground.pipeline.review.marks import mark_sentence, mark_sentences
from petground.pipeline.review.page import file_name
from petground.pipeline.review.panels import SUV_CEILING, Viewer
from petground.pipeline.schemas import read_table, write_table


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


def test_slices_on_a_page_are_counted_as_this_exam_counts_them(work: Path, tmp_path: Path) -> None:
    exams = read_table(work / "exams.parquet", "exams")
    exams[0]["scanner"] = "Maker / Model / Feet"
    write_table(work / "exams.parquet", "exams", exams)
    groups = [{"scanner": "Maker / Model / Feet", "slice_origin": "feet"}]
    (work / "site.json").write_text(json.dumps({"slice_origin": "head", "groups": groups}))
    export(work, tmp_path / "out")
    page = (tmp_path / "out/e1.html").read_text(encoding="utf-8")
    assert "hottest slice 18" in page, "index 17 of 24 from the feet, from 1; from the head it is 7"
    assert "hottest slice 7" not in page


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
