"""HL7 v2 ORU exports: messages as systems send them become rows; a broken one is a row with a problem."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.sources.hl7 import read_hl7
from petground.pipeline.sources.rows import Row

MSH = "MSH|^~\\&|RIS|SITE|PG|SITE|20240105101500||ORU^R01^ORU_R01|{control}|P|2.5.1||||||{charset}"
PID = "PID|1||778899^^^NHS^SS~4711^^^SITE^MR||DOE^JANE||19500101|F"
OBR = "OBR|1|PLACER7|{acc}^RIS|PETCT^PET/CT FDG skull base to thigh^L|||20240103093000"
OBR += "|||||||||||ACC18||||{changed}|||{status}"


def obx(number: int, value: str, kind: str = "TX", status: str = "F", name: str = "PETCT&GDT^PET/CT") -> str:
    return f"OBX|{number}|{kind}|{name}||{value}||||||{status}"


def oru(
    *lines: str, acc: str = "A1", status: str = "F", control: str = "1", changed: str = "", charset: str = ""
) -> str:
    head = [MSH.format(control=control, charset=charset), PID]
    head.append(OBR.format(acc=acc, changed=changed, status=status))
    return "\r".join([*head, *lines]) + "\r"


def read(tmp_path: Path, content: str | bytes, name: str = "r.hl7", **options: object) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_hl7(path, **options))  # type: ignore[arg-type]


def test_a_report_of_lines_with_its_exam_patient_day_and_tracer(tmp_path: Path) -> None:
    lines = [obx(1, "FINDINGS: Left axillary node,"), obx(2, "SUVmax 5.5 (slice 104)."), obx(3, ""), obx(4, "End.")]
    assert read(tmp_path, oru(*lines)) == [
        {
            "exam_id": "A1",
            "report_text": "FINDINGS: Left axillary node,\nSUVmax 5.5 (slice 104).\n\nEnd.",
            "patient_id": "4711",
            "tracer": "FDG",
            "study_date": "2024-01-03",
            "problem": None,
            "problem_detail": None,
        }
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"one\.br\two", "one\ntwo"),
        (r"one\.br\\.br\two", "one\n\ntwo"),
        (r"one\.sp2\two", "one\n\ntwo"),
        (r"a\T\b\S\c\F\d\R\e\E\f", r"a&b^c|d~e\f"),
        (r"\H\SUVmax\N\ 5.5", "SUVmax 5.5"),
        (r"5\X2E\5", "5.5"),
        (r"degree \XB0\ C", "degree ° C"),
        (r"levels L4\L5 and C3\C4\C5", r"levels L4\L5 and C3\C4\C5"),
        ("Smith & Jones ^ SUV 5", "Smith & Jones ^ SUV 5"),
        ("first~second", "first\nsecond"),
        ("a\\.in+4\\b\\.fi\\c", "abc"),
        ("", ""),
        ('""', ""),
    ],
)
def test_escapes_and_repetitions(tmp_path: Path, written: str, meant: str) -> None:
    for kind in ("TX", "FT", "ST"):
        assert read(tmp_path, oru(obx(1, written, kind)))[0]["report_text"] == meant


def test_separators_of_the_message_s_own(tmp_path: Path) -> None:
    message = oru(obx(1, r"SUV 5|F|b \S\ c&d")).replace("\\", "!").replace("|", "#").replace("^~", "@*")
    (row,) = read(tmp_path, message.replace("^", "@").replace("~", "*").replace("5#F#b", "5!F!b"))
    assert (row["exam_id"], row["report_text"], row["patient_id"]) == ("A1", "SUV 5#b @ c&d", "4711")


def test_several_texts_get_their_headings_once(tmp_path: Path) -> None:
    lines = [
        obx(1, "Node, SUVmax 5.5.", name="59776-5^Findings^LN"),
        obx(2, "Mass, SUVmax 7.1.", name="59776-5^Findings^LN"),
        obx(3, "IMPRESSION: progress.", name="19005-8^Impression^LN"),
        obx(4, "Seen again.", name="PETCT&ADT^PET"),
    ]
    assert read(tmp_path, oru(*lines))[0]["report_text"] == (
        "FINDINGS:\nNode, SUVmax 5.5.\nMass, SUVmax 7.1.\nIMPRESSION: progress.\nADDENDUM:\nSeen again."
    )


def test_coded_impressions_and_one_that_the_report_holds_already(tmp_path: Path) -> None:
    mass = obx(1, "^MASS LEFT LOWER LOBE~R91^Nodule \\T\\ scar^I10", "CWE", name="PETCT&IMP^IMPRESSION")
    whole = obx(2, "FINDINGS: Node, SUVmax 5.5.\\.br\\IMPRESSION:\\.br\\1. Progress  of disease.", "FT")
    again = obx(3, "1. Progress of disease.", "FT", name="PETCT&IMP^IMPRESSION")
    assert read(tmp_path, oru(mass))[0]["report_text"] == "IMPRESSION:\nMASS LEFT LOWER LOBE\nNodule & scar"
    text = "FINDINGS: Node, SUVmax 5.5.\nIMPRESSION:\n1. Progress  of disease."
    assert read(tmp_path, oru(whole, again))[0]["report_text"] == text


@pytest.mark.parametrize("codec", ["cp1252", "utf-8"])
@pytest.mark.parametrize("stated", [True, False])
def test_character_sets(tmp_path: Path, codec: str, stated: bool) -> None:
    charset = {"cp1252": "8859/1", "utf-8": "UNICODE UTF-8"}[codec] if stated else ""
    (row,) = read(tmp_path, oru(obx(1, "Größe 7 mm, SUV ≈".replace(" ≈", "")), charset=charset).encode(codec))
    assert row["report_text"] == "Größe 7 mm, SUV"


def test_multibyte_characters_that_hold_separator_bytes(tmp_path: Path) -> None:
    text = "谺 亅 誠 SUVmax 5.5"  # in GB 18030 second bytes reach 0x40..0x7E: '|', '^', '\\'
    content = oru(obx(1, text + " 倈 倊 倽"), charset="GB 18030-2000").encode("gb18030")
    assert any(mark in text.encode("gb18030") + "倈倊倽".encode("gb18030") for mark in b"|^\\~")
    assert read(tmp_path, content)[0]["report_text"] == text + " 倈 倊 倽"


def test_line_ends_framing_and_wrapped_lines(tmp_path: Path) -> None:
    message = oru(obx(1, "Node, SUVmax 5.5,"), obx(2, "slice 104"))
    expected = "Node, SUVmax 5.5,\nslice 104"
    for content in (
        message,
        message.replace("\r", "\n"),
        message.replace("\r", "\r\n"),
        "\x0b" + message + "\x1c\r",
        "\n\n  not HL7\r" + message,
        "\ufeff" + message,
        message.replace("5.5,\r" + obx(2, "slice 104"), "5.5,\nslice 104||||||F"),
    ):
        text = read(tmp_path, content)[0]["report_text"]
        assert text is not None
        assert text.startswith(expected) or text == "Node, SUVmax 5.5,"
    (row,) = read(tmp_path, message.encode("utf-16"))
    assert row["report_text"] == expected
    assert read(tmp_path, gzip.compress(message.encode()), "r.hl7.gz")[0]["report_text"] == expected


def test_a_text_broken_over_lines_without_escapes_is_whole(tmp_path: Path) -> None:
    message = oru(obx(1, "Left node,\nSUVmax 5.5,\nslice 104"))
    assert read(tmp_path, message)[0]["report_text"] == "Left node,\nSUVmax 5.5,\nslice 104"


def test_batches_and_other_messages(tmp_path: Path) -> None:
    adt = MSH.format(control="9", charset="").replace("ORU^R01^ORU_R01", "ADT^A08") + "\r" + PID + "\r"
    parts = ["FHS|^~\\&|RIS\rBHS|^~\\&|RIS\r", oru(obx(1, "one"), acc="A1"), adt, oru(obx(1, "two"), acc="A2")]
    rows = read(tmp_path, "".join([*parts, "BTS|2\rFTS|1\r"]))
    assert [(row["exam_id"], row["report_text"]) for row in rows] == [("A1", "one"), ("A2", "two")]


def test_two_orders_with_their_own_numbers_and_one_billed_as_two(tmp_path: Path) -> None:
    second = OBR.format(acc="A2", changed="", status="F")
    rows = read(tmp_path, oru(obx(1, "one"), second, obx(1, "two")))
    assert [(row["exam_id"], row["report_text"]) for row in rows] == [("A1", "one"), ("A2", "two")]
    again = OBR.format(acc="A1", changed="", status="F").replace("PETCT^", "CT^")
    for content in ([obx(1, "same"), again, obx(1, "same")], [obx(1, "same"), again], [again, obx(1, "same")]):
        rows = read(tmp_path, oru(*content))
        assert [(row["exam_id"], row["report_text"]) for row in rows] == [("A1", "same")]


@pytest.mark.parametrize(
    ("place", "expected"),
    [("OBR-18", "ACC18"), ("OBR-2", "PLACER7"), ("ORC-3.1", "ORC3"), ("obr-3.2", "RIS"), ("ZDS-1", "1.2.3")],
)
def test_the_accession_number_s_place_is_a_setting(tmp_path: Path, place: str, expected: str) -> None:
    orc = "ORC|RE|PLACER7|ORC3^RIS"
    message = oru(obx(1, "text"), "ZDS|1.2.3^RIS^Application^DICOM").replace("OBR|", f"{orc}\rOBR|")
    assert read(tmp_path, message, accession=(place,))[0]["exam_id"] == expected
    assert read(tmp_path, oru(obx(1, "text")), accession=("ORC-3", "OBR-18"))[0]["exam_id"] == "ACC18"


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no place"):
        read(tmp_path, oru(obx(1, "text")), accession=("OBR3",))


@pytest.mark.parametrize(
    ("editions", "expected"),
    [
        ([("P", "1", "draft"), ("F", "2", "signed")], ("signed", None)),
        ([("F", "2", "signed"), ("P", "1", "draft")], ("signed", None)),
        ([("F", "1", "signed"), ("C", "2", "corrected")], ("corrected", None)),
        ([("C", "2", "corrected"), ("F", "1", "signed")], ("corrected", None)),
        ([("F", "1", "signed"), ("P", "2", "addendum begun")], ("signed", None)),
        ([("F", "1", "signed"), ("X", "2", "")], (None, "withdrawn")),
        ([("P", "1", "draft")], (None, "not_final")),
        ([("R", "1", "unverified")], (None, "not_final")),
        ([("A", "1", "with addendum")], ("with addendum", None)),
        ([("", "1", "status unknown")], ("status unknown", None)),
    ],
)
def test_the_last_edition_counts(
    tmp_path: Path, editions: list[tuple[str, str, str]], expected: tuple[str | None, str | None]
) -> None:
    item = {"F": "F", "C": "C", "P": "P", "R": "R", "X": "X", "A": "F", "": ""}
    content = "".join(
        oru(obx(1, text, status=item[status]), status=status, changed=f"2024010{day}", control=day)
        for status, day, text in editions
    )
    (row,) = read(tmp_path, content)
    assert (row["report_text"], row["problem"]) == expected
    if expected[1] == "not_final":
        assert read(tmp_path, content, preliminary=True)[0]["report_text"] == editions[0][2]


def test_parts_that_were_deleted_or_wrong_are_left_out(tmp_path: Path) -> None:
    lines = [obx(1, "kept"), obx(2, "deleted", status="D"), obx(3, "wrong", status="W"), obx(4, "new", status="C")]
    assert read(tmp_path, oru(*lines))[0]["report_text"] == "kept\nnew"
    (row,) = read(tmp_path, oru(obx(1, "deleted", status="D")))
    assert (row["exam_id"], row["report_text"], row["problem"]) == ("A1", None, "withdrawn")


RTF = r"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\f0 Node, SUVmax 5.5,\par slice 104.}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("RIS^TEXT^plain^Base64^" + base64.b64encode(b"Node, SUVmax 5.5").decode(), "Node, SUVmax 5.5"),
        ("^AP^RTF^Base64^" + base64.b64encode(RTF.encode()).decode(), "Node, SUVmax 5.5,\nslice 104."),
        ("^text^html^Base64^" + base64.b64encode(b"<p>Node,<br>SUVmax&nbsp;5.5</p>").decode(), "Node,\nSUVmax 5.5"),
        ("^TEXT^plain^Hex^" + b"SUV 5".hex(), "SUV 5"),
        (r"^TEXT^plain^A^SUV 5 \T\ 6", "SUV 5 & 6"),
        ("^AP^PDF^Base64^" + base64.b64encode(b"%PDF-1.4 secret").decode(), "report_is_pdf"),
        ("^AP^Octet-stream^Base64^" + base64.b64encode(b"%PDF-1.4 secret").decode(), "report_is_pdf"),
        ("^IM^JPEG^Base64^" + base64.b64encode(b"\xff\xd8\xff\xe0").decode(), "report_not_text"),
        ("^TEXT^plain^Base64^@@secret@@", "unreadable"),
        ("^TEXT^plain^Hex^zz", "unreadable"),
        ("^TEXT", ""),
    ],
)
def test_embedded_documents(tmp_path: Path, value: str, expected: str) -> None:
    (row,) = read(tmp_path, oru(obx(1, value, "ED")))
    assert expected in (row["report_text"], row["problem"])
    assert "secret" not in str(row)
    (row,) = read(tmp_path, oru(obx(1, "the same as text"), obx(2, value, "ED")))
    assert (row["report_text"], row["problem"]) == ("the same as text", None)


def test_a_report_kept_in_notes(tmp_path: Path) -> None:
    assert read(tmp_path, oru("NTE|1||Node, SUVmax 5.5"))[0]["report_text"] == "Node, SUVmax 5.5"
    assert read(tmp_path, oru("NTE|1||clinical note", obx(1, "text")))[0]["report_text"] == "text"
    assert read(tmp_path, oru(obx(1, "7.1", "NM"), "NTE|1||on a number"))[0]["report_text"] == "on a number"
    assert read(tmp_path, oru(obx(1, "text"), "NTE|1||more\\.br\\lines"))[0]["report_text"] == "text\nmore\nlines"


def test_a_broken_message_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken = "MSH|\rPID|1||secret name\rOBR|1\r"
    rows = read(tmp_path, oru(obx(1, "one")) + broken + oru(obx(1, "two"), acc="A2"))
    assert [row["report_text"] for row in rows if row["problem"] is None] == ["one", "two"]
    assert "secret" not in str(rows)


def test_a_procedure_filter_keeps_the_others_as_rows(tmp_path: Path) -> None:
    chest = oru(obx(1, "no pneumonia"), acc="A2").replace("PETCT^PET/CT FDG skull base to thigh", "CXR^Chest 2 views")
    rows = read(tmp_path, oru(obx(1, "one")) + chest, procedure=r"\bPET")
    assert [(row["exam_id"], row["problem"]) for row in rows] == [("A1", None), ("A2", "other_procedure")]
    assert rows[1]["report_text"] is None
    assert [row["problem"] for row in read(tmp_path, oru(obx(1, "one")) + chest)] == [None, None]
    with pytest.raises(ConfigError, match="regular expression"):
        read(tmp_path, oru(obx(1, "one")), procedure="(")


def test_a_folder_and_files_that_are_none(tmp_path: Path) -> None:
    for name, acc in (("b.hl7", "A2"), ("a.hl7", "A1"), ("sub/c.oru", "A3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(oru(obx(1, name), acc=acc), encoding="utf-8", newline="")
    (tmp_path / "d.hl7.gz").write_bytes(gzip.compress(oru(obx(1, "gz"), acc="A4").encode())[:-20])
    rows = list(read_hl7(tmp_path))
    assert [row["exam_id"] for row in rows if row["exam_id"]][:3] == ["A1", "A2", "A3"]
    assert [row["problem_detail"] for row in rows if row["problem"]] == ["d.hl7.gz cannot be read: it breaks off"]
    for content in ("", "exam_id,report_text\n1,MSH\n", "PID|1\rOBX|1\r"):
        with pytest.raises(InputError, match="no HL7 v2 ORU"):
            read(tmp_path / "sub", content, "e.hl7")
    with pytest.raises(InputError, match="no report export"):
        list(read_hl7(tmp_path / "none.hl7"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file"):
        list(read_hl7(tmp_path / "empty"))


SEGMENTS = st.sampled_from(
    [
        "MSH|^~\\&|",
        "PID|",
        "OBR|1||A1|",
        "OBX|1|TX|",
        "OBX|1|ED|||^a^b^Base64^",
        "OBX|1|NM|",
        "OBX|1|CWE|||^",
        "NTE|1||",
        "ORC|",
    ]
)
PIECES = st.one_of(
    SEGMENTS, st.sampled_from([*"|^~\\&\r\n\x0b\x1c", "ORU^R01", "\\X", "\\.br\\", "FHS|"]), st.text(max_size=6)
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, max_size=40), start=st.booleans(), tail=st.binary(max_size=20))
def test_any_bytes_give_rows_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], start: bool, tail: bytes
) -> None:
    head = oru(obx(1, "text")) if start else ""
    content = (head + "".join(pieces)).encode("utf-8", "surrogatepass") + tail
    try:
        rows = read(tmp_path_factory.getbasetemp(), content, "fuzz.hl7")
    except InputError:
        return
    for row in rows:
        "".join(value for value in row.values() if value).encode()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=80))
def test_what_a_sender_escapes_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    table = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
    escaped = "".join(table.get(character, character) for character in text)
    (row,) = read(tmp_path_factory.getbasetemp(), oru(obx(1, "x" + escaped + "x")), "trip.hl7")
    assert row["report_text"] == ("x" + text + "x").replace("\ufeff", "")
