"""Evaluations side by side: pairs, differences, tests by hand, and what cannot be compared."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from petground.labeling.errors import InputError
from petground.training.bootstrap import exchanged
from petground.training.compare import compare
from petground.training.presence import auroc, calibration


def evaluation(
    folder: Path,
    hits: str,
    keys: list[str] | None = None,
    against: str = "truth",
    split: str = "test",
    volume_ml: float = 1.2,
) -> Path:
    """A folder as `petground evaluate` writes it; hits: one letter per reference, h(it), w(rong), n(o answer)."""
    folder.mkdir(parents=True)
    names = keys or [f"f{n:03d}" for n in range(len(hits))]
    with (folder / "predictions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        rules = [f"right_hit_{rule}" for rule in ("paper", "overlap", "dice50")]
        writer.writerow(["exam_id", "key", "patient_id", "suv", "volume_ml", "right_answered", "right_dice", *rules])
        for n, (key, hit) in enumerate(zip(names, hits, strict=True)):
            writer.writerow([f"e{n // 2}", key, f"p{n // 2}", 5.0, volume_ml, hit != "n", 0.5, *[hit == "h"] * 3])
    n = len(hits)
    tp, fp = hits.count("h"), hits.count("w")
    f1 = {"value": 2 * tp / (2 * tp + fp + n - tp), "low": 0.1, "high": 0.9, "n": n}
    half = {**f1, "value": 0.5}
    right = {"f1": dict.fromkeys(("paper", "overlap", "dice50"), f1), "mean_dice": half, "mean_dice_as_marked": half}
    by = {"laterality": {"left": right, "right": right}, "site": {"<b>node</b>": right}}
    metrics = {"runs": {"right": right}, "by": by, "left_right_confusion": None, "presence_auroc": 0.75,
               "measured_against": against, "outline": {"pet": 1}, "split": split}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_differences_by_hand(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a" / "evaluation", "hhhhwwnn")
    other = evaluation(tmp_path / "b" / "evaluation", "hhwnhhhh")
    assert compare([first, other], tmp_path / "out") == 0
    table = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["a/evaluation", "b/evaluation"]
    found = table["rows"][1]["minus_first"]["paper"]
    assert (found["only_this"], found["only_first"]) == (4, 2)
    # 6 hits, 1 wrong, 2 missed of 8 against 4 hits, 2 wrong, 4 missed
    assert found["f1"]["value"] == pytest.approx(12 / 15 - 8 / 14)
    assert found["f1"]["low"] <= found["f1"]["value"] <= found["f1"]["high"]
    # lesions found more by the other, by patient: 0, -2, 2, 2; the first patient's exchange moves nothing
    assert found["p"] == pytest.approx(_exchanges([(2, 0, 2, 0), (2, 0, 0, 1), (0, 2, 2, 0), (0, 0, 2, 0)]))
    assert "minus_first" not in table["rows"][0]
    assert table["rows"][1]["outlines"] == "the PET's"
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "b/evaluation" in page
    assert "<b>node</b>" not in page, "names are escaped"


def test_who_learnt_from_these_exams_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [evaluation(tmp_path / name / "evaluation", "hhwn") for name in ("a", "b")]
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    learnt = {"learnt_from": {"trained": 2, "validated": 1}, "exams": 2}
    (folders[1] / "metrics.json").write_text(json.dumps(metrics | learnt))
    compare(folders, tmp_path / "out")
    told = "Of these 2 exams the weights trained on 2, and 1 chose checkpoint and limits"
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(told) == 1
    assert f"b/evaluation: {told}" in shown
    assert " ".join((tmp_path / "out" / "compare.html").read_text().split()).count(told) == 1


def _exchanges(patients: list[tuple[int, int, int, int]]) -> float:
    """Share of the exchanges with a difference of F1 at least as large; (hits, wrong) of the first, of the other."""

    def f1(hits: int, wrong: int) -> float:
        return 2 * hits / (2 * hits + wrong + 8 - hits)

    def difference(swapped: tuple[bool, ...]) -> float:
        turned = [(c, d, a, b) if swap else (a, b, c, d) for swap, (a, b, c, d) in zip(swapped, patients, strict=True)]
        a, b, c, d = (sum(column) for column in zip(*turned, strict=True))
        return abs(f1(c, d) - f1(a, b))

    every = [difference(swapped) for swapped in itertools.product([False, True], repeat=len(patients))]
    return sum(one >= every[0] - 1e-9 for one in every) / len(every)


def test_a_difference_in_one_patients_many_lesions_is_no_proof() -> None:
    """Three patients, of whom one model finds everything and the other nothing: 2 of 8 exchanges are as far apart."""
    ours, none, patients = np.ones((30, 1)), np.zeros((30, 1)), [f"p{n // 10}" for n in range(30)]
    assert exchanged(ours, none, patients, lambda sums: sums[..., 0] / 30) == pytest.approx(2 / 8)
    assert exchanged(ours, none, ["p"] * 30, lambda sums: sums[..., 0]) is None
    drawn = exchanged(ours, none, [f"p{n}" for n in range(30)], lambda sums: sums[..., 0] / 30)
    assert drawn == pytest.approx(1 / 9999), "of more patients so many exchanges are drawn, the found one among them"


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", "hh")
    with pytest.raises(InputError, match="share 1 of 2"):
        compare([first, evaluation(tmp_path / "b", "hh", ["f000", "f009"])], tmp_path / "out")
    with pytest.raises(InputError, match="c was measured against weak labels, a against truth"):
        compare([first, evaluation(tmp_path / "c", "hh", against="weak labels")], tmp_path / "out")
    with pytest.raises(InputError, match="d was evaluated on split 'all', a on 'test'"):
        compare([first, evaluation(tmp_path / "d", "hh", split="all")], tmp_path / "out")
    with pytest.raises(InputError, match="2 references of e have another SUV or outline than in a"):
        compare([first, evaluation(tmp_path / "e", "hh", volume_ml=30.0)], tmp_path / "out")
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


def test_the_benchmark_tells_each_models_difference_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    against_first = importlib.import_module("grounding").against_first
    hits = {"ours": "hhhhhhhh", "blind": "hhhhwwnn", "llmseg": "hwwwwwww"}
    folders = [evaluation(tmp_path / name / "evaluation", hit) for name, hit in hits.items()]
    found = against_first(folders)
    assert list(found) == ["blind", "llmseg"]
    assert found["blind"]["f1"]["value"] == pytest.approx(8 / 14 - 1)
    assert found["llmseg"]["f1"]["value"] == pytest.approx(1 / 8 - 1)
    assert 0 < found["llmseg"]["p"] <= found["blind"]["p"]
    assert against_first(folders[:1]) == {}
