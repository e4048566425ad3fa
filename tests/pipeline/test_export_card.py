"""The data card: every mention's fate, small counts masked, nobody and no sentence in it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from export_work import export, make_work
from PIL import Image

from petground.pipeline.exports.card import markdown
from petground.pipeline.exports.card_data import FEW, count, fates, hide, masked
from petground.pipeline.exports.card_plots import draw
from petground.pipeline.exports.select import select
from petground.pipeline.schemas import read_table, write_table

REASONS = ["physiologic"] * 9 + ["prior"] * 7 + ["no_match"] * 6 + ["check_suv"] * 2


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """WORK and the export of 15 exams with 26 more mentions; e00 to e09 are FDG."""
    folder = tmp_path_factory.mktemp("card")
    more = [
        {
            "exam_id": f"e{n % 15:02d}",
            "finding_id": f"x{n}",
            "sentence": "Mrs Miller's liver has an SUV of 2.",
            "status": "excluded",
            "reason": reason,
        }
        for n, reason in enumerate(REASONS)
    ]
    more += [
        {"exam_id": "e01", "finding_id": f"y{n}", "sentence": "s", "status": "failed", "reason": "timed_out"}
        for n in range(8)
    ]
    work = make_work(folder / "work", 15, findings=more, patients={n: f"MRN-7{n:02d}" for n in range(15)})
    export(work, folder / "out", "nnunet")
    return work, folder / "out"


def test_every_mention_has_one_fate_and_they_add_up(released: tuple[Path, Path]) -> None:
    work, _ = released
    selection = select(work, min_confidence=0.3)
    rows = fates(selection, exact=True)
    assert sum(row["count"] for row in rows) == len(selection.findings) == 30 + len(REASONS) + 8
    found = {row["fate"]: (row["stage"], row["count"]) for row in rows}
    assert found["physiologic"] == ("report", 9)
    assert found["check_suv"] == ("image", 2)
    assert found["timed_out"] == ("run", 8)
    assert found["exported"][1] + found["below_confidence"][1] == 30
    assert [row["stage"] for row in rows] == sorted(
        (row["stage"] for row in rows), key=["report", "image", "run", "review", "release", "exported"].index
    )


def test_small_counts_are_masked_and_cannot_be_had_by_subtraction() -> None:
    assert [masked(n) for n in (0, 1, 4, 5)] == [0, FEW, FEW, 5]
    assert hide([100, 7, 3]) == [100, "5 or more", FEW], "100 + 7 of 110 would tell the 3"
    assert hide([100, 2, 3]) == [100, FEW, FEW]
    assert hide([3, 0]) == [FEW, 0]
    assert count(["a"] * 9 + ["b"] * 6 + ["c"]) == {"a": 9, "b": "5 or more", "c": FEW}


def test_no_id_date_or_word_of_a_report_is_on_the_card(released: tuple[Path, Path]) -> None:
    _, out = released
    for text in ((out / "card.json").read_text(), (out / "DATA_CARD.md").read_text()):
        for word in ("MRN", "Miller", "e00", "e07", "-03-07", "axillary", str(out.parent)):
            assert word not in text
        assert FEW in text
    card = json.loads((out / "card.json").read_text())
    assert card["counts"]["exams released"] == 15
    assert card["exams_by"]["tracer"] == {"FDG": 9, "DCFPyL": FEW, "DOTATATE": FEW}
    assert set(card["exams_by"]["year"].values()) == {FEW}
    told = {row["fate"]: row["count"] for row in card["fates"]}
    assert told["check_suv"] == FEW
    assert told["no_match"] == "5 or more", "the only masked count takes the next smallest with it"
    assert len(card["tables_sha256"]) == 3


def test_the_plots_are_pictures_and_the_card_shows_each(released: tuple[Path, Path]) -> None:
    _, out = released
    text = (out / "DATA_CARD.md").read_text()
    pictures = sorted((out / "card").iterdir())
    assert [p.name for p in pictures] == ["composition.png", "distributions.png", "fates.png", "splits.png"]
    for path in pictures:
        assert f"](card/{path.name})" in text
        image = Image.open(io.BytesIO(path.read_bytes()))
        assert image.width > 800
        assert len(image.convert("RGB").getcolors(1 << 20)) > 5


def test_the_same_release_gives_the_same_card_to_the_byte(released: tuple[Path, Path]) -> None:
    _, out = released
    card = json.loads((out / "card.json").read_text())
    assert draw(card) == {p.name: p.read_bytes() for p in (out / "card").iterdir()}
    assert markdown(card) == (out / "DATA_CARD.md").read_text()


def test_quantiles_of_a_few_are_not_told(tmp_path: Path) -> None:
    export(make_work(tmp_path / "work", 5), tmp_path / "out", "nnunet")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["distributions"]["suv_reported"]["median"] is None
    assert "too few" in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_scanners_are_told_by_model_never_by_station(tmp_path: Path) -> None:
    work = make_work(tmp_path / "work", 6)
    rows = read_table(work / "exams.parquet", "exams")
    for row in rows:
        row["scanner"] = "Maker / Model 64 / ST-MARYS-PET2"
    write_table(work / "exams.parquet", "exams", rows)
    export(work, tmp_path / "out", "monai")
    text = (tmp_path / "out" / "card.json").read_text()
    assert json.loads(text)["exams_by"]["scanner"] == {"Maker / Model 64": 6}
    assert "ST-MARYS" not in text
