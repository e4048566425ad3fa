"""What an evaluation measures against and asks: truth linked to what was read, absent, swapped and denied sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluate_work import (
    figures,
    make_work,
    phantom_of,
    stand_in,
)

from petground.pipeline.schemas import read_table, write_table
from petground.training.controls import absent_sentences, questions
from petground.training.evaluate import evaluate
from petground.training.references import Reference, from_labels, from_truth, link_truth, places_here
from petground.training.work import denied_sentences


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path / "work")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in(tmp_path / "run", monkeypatch)


def test_truth_is_measured_by_true_masks_and_lesions_never_read_are_missed(
    work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    phantom = phantom_of(work, tmp_path / "phantom", unread="right")
    out = tmp_path / "out"
    evaluate(work, checkpoint, out, truth=phantom, split="all")
    found = figures(out)
    assert found["measured_against"] == "truth"
    assert found["references"] == 8
    assert found["without_sentence"] == 1
    assert found["false_positives_per_empty_sentence"] == {
        "value": 1.0, "low": pytest.approx(0.025 ** (1 / 7)), "high": 1.0, "n": 7,
    }  # fmt: skip
    assert found["runs"]["right"]["counts"]["paper"] == {"tp": 7, "fp": 0, "fn": 1}
    assert found["f1"]["right"] == pytest.approx(14 / 15)


def test_truth_links_by_exam_rounding_and_slice_and_side() -> None:
    def lesion(key: str, suv: float, k: int, side: str | None = None, exam: str = "a") -> dict[str, Any]:
        return {"exam_id": exam, "lesion_id": key, "suv_max": suv, "slice": k, "laterality": side, "site": "rib"}

    def finding(key: str, suv: float, k: int | None, side: str | None = None, **more: Any) -> dict[str, Any]:
        row = {"exam_id": "a", "finding_id": key, "suv": suv, "suv_decimals": 1, "slice": k, "laterality": side}
        return {**row, "site": "rib", "prompt": key, "stage": "check", **more}

    truth = [
        lesion("rounded", 5.249, 10),
        lesion("other_slice", 5.2, 11),
        lesion("left", 7.31, 20, "left"),
        lesion("right", 7.33, 20, "right"),
        lesion("two_decimals", 3.144, 30),
        lesion("other_exam", 5.2, 10, exam="b"),
        lesion("prior", 9.0, 40),
    ]
    findings = [
        finding("one", 5.2, 10),
        finding("R", 7.3, 20, "right"),
        finding("L", 7.3, 20, "left"),
        finding("rough", 3.15, 30, suv_decimals=2),
        finding("fine", 3.14, 30, suv_decimals=2),
        finding("no slice", 5.2, None),
        finding("told as prior", 9.0, 40, stage="extract"),
        finding("no label, but read", 5.2, 12, stage="match"),
    ]
    assert {key: row["prompt"] for key, row in link_truth(truth, findings).items()} == {
        ("a", "rounded"): "one",
        ("a", "left"): "L",
        ("a", "right"): "R",
        ("a", "two_decimals"): "fine",
    }


def test_two_lesions_alike_do_not_share_one_finding() -> None:
    truth = [
        {"exam_id": "a", "lesion_id": str(n), "suv_max": 5.0, "slice": 3, "laterality": None, "site": None}
        for n in range(2)
    ]
    finding = {
        "exam_id": "a", "finding_id": "f", "suv": 5.0, "suv_decimals": 1, "slice": 3, "laterality": None, "site": None,
        "prompt": "p", "stage": "check",
    }  # fmt: skip
    assert len(link_truth(truth, [finding])) == 1


def reference(exam: str, site: str | None, side: str | None, prompt: str = "") -> Reference:
    return Reference(exam, site or "", exam, "FDG", prompt, 5.0, 1.0, side, site, Path())


def test_absent_sentences_name_a_place_where_the_exam_has_nothing() -> None:
    references = [reference("a", "liver", None), reference("b", "rib", "left"), reference("c", "rib", "right")]

    def absent(donors: list[int], **told: tuple[str, str]) -> list[int]:
        here = {r.exam_id: {r.place} for r in references}
        for exam, place in told.items():
            here[exam].add(place)
        return absent_sentences(references, donors, here)

    assert absent([1, 0, 1]) == [0, 1, 2]
    assert absent([1, 0, 1], a=("costal lesion", "left")) == [1, 2], "told of in other words, though no reference"
    assert absent([1, 0, 1], a=("costal lesion", "right"), c=("left rib", "")) == [0, 1]
    references[1] = reference("b", "lymph node", "left")
    assert absent([1, 1, 1]) == [2], "a node could be anywhere on its side"


def test_the_other_side_is_asked_only_where_the_report_tells_of_nothing_there() -> None:
    references = [
        reference("a", "Axillary node", "left", "An avid left axillary node."),
        reference("b", "axillary node", "left", "An avid left axillary node, not the right one."),
        reference("c", "axillary node", "right", "An avid left axillary node."),
        reference("d", None, "left", "An avid left one."),
    ]
    here: dict[str, Any] = {r.exam_id: {r.place} for r in references}
    asked, nowhere = questions(references, here)
    assert nowhere["swapped"] == [0]
    assert asked["swapped"][0] is not None
    assert asked["swapped"][0].prompt == "An avid right axillary node."
    for told in (("axilla", "right"), ("axilla", "")):
        assert questions(references, {**here, "a": {references[0].place, told}}).nowhere["swapped"] == []


def test_what_the_report_denies_is_asked_where_nothing_else_may_be(
    work: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The stand-in answers any sentence with the lesion on its side: each denied one asked is a false alarm."""
    for name in ("labels", "findings"):
        table = read_table(work / f"{name}.parquet", name)
        write_table(work / f"{name}.parquet", name, [{**row, "site": "axilla"} for row in table])
    rows = read_table(work / "findings.parquet", "findings")
    here = {"exam0": {("axilla", "left"), ("axilla", "right")}, "exam1": {("node", "left")}}
    said = [  # exam, side, site, sentence
        ("exam0", "right", "liver", "no avid right liver lesion"),
        ("exam0", None, None, "no avid lesion there"),  # of an unknown place: there may be one
        ("exam0", "left", "axillary node", "a small left axillary node is not avid"),  # another lesion is there
        ("exam1", "right", "rib", "the right rib is not avid"),
        ("exam1", "left", "kidney", "no left kidney lesion"),  # there is a node somewhere on the left
        ("exam1", "right", "kidney", "SUVmax 2.0"),  # no words
        ("exam1", "right", "adrenal", "no right adrenal uptake"),
        ("exam1", "right", "lung", "the right lung is not avid"),  # a third one in an exam of two references
    ]
    more = [
        {**rows[0], "exam_id": exam, "laterality": side, "site": site, "prompt": sentence, "reason": "negated",
         "stage": "extract", "finding_id": f"n{n}"}
        for n, (exam, side, site, sentence) in enumerate(said)
    ]  # fmt: skip
    valueless = [  # denial, site, side: of one in a list there may be a lesion
        ("d1", "hilar", "right"), ("d2", "hilar", "right"), ("d2", "axillary", "left"), ("d3", "chest", None),
    ]  # fmt: skip
    denials = [
        {"exam_id": "exam0", "denial_id": denial, "site": site, "laterality": side, "prompt": f"no avid nodes {denial}"}
        for denial, site, side in valueless
    ]
    found = denied_sentences([*rows, *more], "words", here, denials)
    assert found == {
        "exam0": ("no avid right liver lesion", "no avid nodes d1"),
        "exam1": ("the right rib is not avid", "no right adrenal uptake", "the right lung is not avid"),
    }
    references = [reference("exam1", "node", "left"), reference("exam0", "node", "left"), reference("exam1", "x", None)]
    asked, nowhere = questions(references, here, found)
    said_of = [q.prompt for q in asked["denied"] if q is not None]
    assert said_of[1] in found["exam0"]
    assert {said_of[0], said_of[2]} < {*found["exam1"]}
    assert nowhere["denied"] == [0, 1, 2]
    much = {"exam1": tuple(f"no uptake {n}" for n in range(20))}
    many = [reference("exam1", "node", "left")] * 10
    first, again, other = (questions(many, here, much, seed=seed).asked["denied"] for seed in (0, 0, 1))
    assert first == again != other
    assert sum(question is not None for question in first) == 4, "one report, however much it denies"
    write_table(work / "findings.parquet", "findings", [*rows, *more])
    evaluate(work, checkpoint, tmp_path / "out", split="all")
    told = figures(tmp_path / "out")
    alarms = told["false_positives_per_denied_sentence"]
    assert (alarms["value"], alarms["n"]) == (1.0, 3)
    assert "denied" not in told["runs"], "there is nothing to hit"
    assert "what the report itself denies" in (tmp_path / "out" / "evaluation.html").read_text()


def test_places_are_those_of_the_report_and_of_a_phantoms_untold_lesions(work: Path, tmp_path: Path) -> None:
    """A mention without a label and a lesion that no report tells of are there all the same; a negated one is not."""
    rows = read_table(work / "findings.parquet", "findings")
    more = {"site": "Hilar node", "laterality": "right", "stage": "match", "finding_id": "f009", "reason": "no_match"}
    denied = {"site": "Liver", "laterality": None, "stage": "extract", "finding_id": "f010", "reason": "negated"}
    write_table(work / "findings.parquet", "findings", [*rows, {**rows[0], **more}, {**rows[0], **denied}])
    told = places_here(work, from_labels(work))["exam0"]
    assert ("hilar node", "right") in told
    assert ("liver", "") not in told
    phantom = phantom_of(work, tmp_path / "phantom")
    truth = read_table(phantom / "truth.parquet", "truth")
    truth[-1] |= {"site": "Spleen", "laterality": None}  # reported: False
    write_table(phantom / "truth.parquet", "truth", truth)
    assert ("spleen", "") in places_here(work, from_truth(work, phantom), phantom)["exam0"]
    assert ("spleen", "") not in told


def test_truth_of_exams_without_positive_findings_counts_as_missed(work: Path, tmp_path: Path) -> None:
    phantom = phantom_of(work, tmp_path / "phantom")
    write_table(work / "findings.parquet", "findings", [])
    assert all(r.prompt is None for r in from_truth(work, phantom))
