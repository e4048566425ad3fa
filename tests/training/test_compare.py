"""Evaluations side by side: pairs, differences, tests by hand, and what cannot be compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from petground.labeling.errors import InputError
from petground.training.compare import compare
from petground.training.presence import auroc, calibration


def evaluation(folder: Path, hits: str, keys: list[str] | None = None) -> Path:
    """A folder as `petground evaluate` writes it; hits: one letter per reference, h(it), w(rong), n(o answer)."""
    folder.mkdir(parents=True)
    names = keys or [f"f{n:03d}" for n in range(len(hits))]
    with (folder / "predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        rules = [f"right_hit_{rule}" for rule in ("paper", "overlap", "dice50")]
        writer.writerow(["exam_id", "key", "patient_id", "right_answered", "right_dice", *rules])
        for n, (key, hit) in enumerate(zip(names, hits, strict=True)):
            writer.writerow([f"e{n // 2}", key, f"p{n // 2}", hit != "n", 0.5, *[hit == "h"] * 3])
    n = len(hits)
    tp, fp = hits.count("h"), hits.count("w")
    f1 = {"value": 2 * tp / (2 * tp + fp + n - tp), "low": 0.1, "high": 0.9, "n": n}
    right = {"f1": dict.fromkeys(("paper", "overlap", "dice50"), f1), "mean_dice": {**f1, "value": 0.5}}
    by = {"laterality": {"left": right, "right": right}, "site": {"<b>node</b>": right}}
    metrics = {"runs": {"right": right}, "by": by, "left_right_confusion": None, "presence_auroc": 0.75}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_differences_and_mcnemar_by_hand(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a" / "evaluation", "hhhhwwnn")
    other = evaluation(tmp_path / "b" / "evaluation", "hhwnhhhh")
    assert compare([first, other], tmp_path / "out") == 0
    table = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["a/evaluation", "b/evaluation"]
    found = table["rows"][1]["minus_first"]["paper"]
    assert (found["only_this"], found["only_first"]) == (4, 2)
    # two-sided binomial, 4 of 6 at one half: (C(6,0)+C(6,1)+C(6,2)) * 2 / 64
    assert found["mcnemar_p"] == pytest.approx(44 / 64)
    # 6 hits, 1 wrong, 2 missed of 8 against 4 hits, 2 wrong, 4 missed
    assert found["f1"]["value"] == pytest.approx(12 / 15 - 8 / 14)
    assert found["f1"]["low"] <= found["f1"]["value"] <= found["f1"]["high"]
    assert "minus_first" not in table["rows"][0]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "b/evaluation" in page
    assert "<b>node</b>" not in page, "names are escaped"


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", "hh")
    with pytest.raises(InputError, match="share 1 of 2"):
        compare([first, evaluation(tmp_path / "b", "hh", ["f000", "f009"])], tmp_path / "out")
    with pytest.raises(InputError, match="two or more"):
        compare([first], tmp_path / "out")
    with pytest.raises(InputError, match="twice"):
        compare([first, first], tmp_path / "out")
    with pytest.raises(InputError, match="no evaluation"):
        compare([first, tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_auroc_and_calibration_by_hand() -> None:
    true = [True, True, False, False]
    assert auroc([0.9, 0.8, 0.1, 0.8], true, list("abcd")).value == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert auroc([0.2], [True], ["a"]).as_json() == {"value": None, "low": None, "high": None, "n": 1}
    said = calibration([0.05, 0.05, 0.95, 1.0], [False, True, True, True], list("aabb"))
    assert said["error"]["value"] == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)
    assert [one["n"] for one in said["bins"]] == [2, 2]
    assert calibration([], [], [])["error"]["value"] is None


def test_intervals_of_presence_are_over_patients_not_sentences() -> None:
    """Two patients, told apart in one and never in the other: one of both (0.5 to 1) is drawn, or the two."""
    presence, true, patients = [0.9, 0.1, 0.4, 0.4] * 50, [True, False] * 100, ["a", "a", "b", "b"] * 50
    found = auroc(presence, true, patients)
    assert (found.low, found.high) == (0.5, 1.0)
    assert found.value == pytest.approx((1 + 0.5 + 1 + 1) / 4), "of b's 0.4 the one lies above a's 0.1"
    error = calibration(presence, true, patients)["error"]
    assert (error["low"], error["high"]) == pytest.approx((0.1, 0.1))
    alone = auroc(presence, true, ["a"] * 200)
    assert (alone.low, alone.n) == (None, 200)
