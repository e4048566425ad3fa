"""What a report denies, from its text through `petground label` to the sentences that teach an empty mask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.executors import Outcome, guarded
from petground.pipeline.label_run import LabelRun, run_labels
from petground.pipeline.nifti import write_nifti
from petground.pipeline.reports import open_export
from petground.pipeline.schemas import read_table
from petground.training.work import read_exams

REPORT = """FINDINGS: Hypermetabolic {side} axillary node, SUVmax 7.3, axial slice 19.
A 6 mm {other} hilar node is not avid (SUVmax 1.2).
A 5 mm {side} axillary node is not avid (SUVmax 0.9).
The 7 mm {other} axillary node (SUVmax 1.1) shows no uptake above background.
No avid {other} adrenal nodule.
Liver SUVmax 2.1.
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labelled exams that are each other's mirror image: a lesion at the left, one at the right."""
    folder = tmp_path_factory.mktemp("denied")
    affine = np.array([[-4.0, 0, 0, 80], [0, 4.0, 0, -80], [0, 0, 4.0, -120], [0, 0, 0, 1]])
    lines = []
    for side, other, i in (("left", "right", 30), ("right", "left", 9)):
        pet = np.zeros((40, 40, 60), np.float32)
        pet[4:36, 8:32] = 0.8
        distance = sum((g - c) ** 2 for g, c in zip(np.indices(pet.shape), (i, 20, 41), strict=True))
        pet = np.maximum(pet, 7.3 * np.exp(-distance / 8.0)).astype(np.float32)
        write_nifti(folder / "exams" / side / "pet.nii.gz", Volume(pet, affine, "SUVbw"))
        lines.append(json.dumps({"exam_id": side, "report_text": REPORT.format(side=side, other=other)}))
    reports = folder / "reports.jsonl"
    reports.write_text("\n".join(lines))
    run_labels(LabelRun(open_export(reports), folder / "exams", folder / "work", Site(), _in_process))
    return folder / "work"


def _in_process(function: Callable[..., Any], cases: Iterable[tuple[str, tuple[Any, ...]]]) -> Iterator[Outcome]:
    for case, args in cases:
        yield guarded(function, case, args)


def test_denied_sentences_of_a_report_teach(work: Path) -> None:
    """Not the one of the place that has a lesion, and not the one without an SUV: it is no row of the table."""
    assert {exam.exam_id: exam.negated for exam in read_exams(work)} == {
        side: (
            f"A 6 mm {other} hilar node is not avid.",
            f"The 7 mm {other} axillary node shows no uptake above background.",
        )
        for side, other in (("left", "right"), ("right", "left"))
    }


def test_denied_sentences_have_words_and_what_is_never_asked_has_none(work: Path) -> None:
    rows = read_table(work / "findings.parquet", "findings")
    assert {row["reason"]: bool(row["prompt"]) for row in rows} == {None: True, "negated": True, "reference": False}
    assert sum(row["reason"] == "negated" for row in rows) == 6


def test_where_slices_are_told_no_sentence_is_known_by_having_none(work: Path) -> None:
    assert [exam.negated for exam in read_exams(work, prompt="all")] == [(), ()]
    assert all("SUVmax 1." in one for exam in read_exams(work, prompt="words+suv") for one in exam.negated)
