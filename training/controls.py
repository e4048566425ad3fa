"""What is asked of a model for each reference, and the controls that show whether it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from petground.labeling.places import Place, may_be_here
from petground.training.references import Reference
from petground.training.work import names_one_side, some_of, swap_sides

__all__ = ["FEW", "Question", "Questions", "absent_sentences", "questions", "shuffled_among_exams"]

FEW = 4  # denied sentences asked of one exam
TRIES = 32  # drawings looked at for one in which few sentences happen to be worded like the right one


class Question(NamedTuple):
    """prompt: what is read. slice, series: where its report says that the finding lies; None: not told."""

    prompt: str
    slice: int | None = None
    series: int | None = None


class Questions(NamedTuple):
    """asked: run -> what each reference is asked, None where it has no sentence. nowhere: of the runs "shuffled",
    "swapped" and "denied" the references whose question is about nothing there."""

    asked: dict[str, list[Question | None]]
    nowhere: dict[str, list[int]]


def questions(
    references: Sequence[Reference],
    here: Mapping[str, Collection[Place]],
    denied: Mapping[str, Sequence[str]] | None = None,
    *,
    controls: bool = True,
    seed: int = 0,
) -> Questions:
    """The right sentences; with controls also another exam's, the other side's, denied ones and an empty one.

    here: by exam every place at which there may be a lesion (`references.places_here`). denied: by exam sentences of
    its report that say of another place that nothing is there (`work.denied_sentences`); some are asked, once each, at
    most FEW of an exam and as many as it has references: a report that denies twenty things is one report.
    """
    right = [None if r.prompt is None else Question(r.prompt, r.slice, r.series) for r in references]
    asked: dict[str, list[Question | None]] = {"right": right}
    nowhere: dict[str, list[int]] = {}
    if not controls:
        return Questions(asked, nowhere)
    known = [i for i, question in enumerate(right) if question is not None]
    drawn = shuffled_among_exams([references[i].exam_id for i in known], [_prompt(right[i]) for i in known], seed=seed)
    if drawn is not None:
        donors = list(range(len(references)))
        for i, donor in zip(known, drawn, strict=True):
            donors[i] = known[donor]
        asked["shuffled"] = [right[donor] for donor in donors]
        nowhere["shuffled"] = absent_sentences(references, donors, here)
    swapped = [_swapped(r, here.get(r.exam_id, ())) for r in references]
    asked["swapped"] = [
        q and q._replace(prompt=other) if other else None for q, other in zip(right, swapped, strict=True)
    ]
    nowhere["swapped"] = [i for i, question in enumerate(asked["swapped"]) if question is not None]
    left = {exam_id: list(some_of(said, exam_id, FEW, seed)) for exam_id, said in (denied or {}).items()}
    asked["denied"] = [Question(left[r.exam_id].pop(0)) if left.get(r.exam_id) else None for r in references]
    nowhere["denied"] = [i for i, question in enumerate(asked["denied"]) if question is not None]
    asked["empty"] = [None if question is None else Question("") for question in right]
    return Questions(asked, nowhere)


def absent_sentences(
    references: Sequence[Reference], donors: Sequence[int], here: Mapping[str, Collection[Place]]
) -> list[int]:
    """References whose shuffled sentence is of a place at which surely nothing is told of in their own exam.

    Only what the reports tell is known: a lesion that no report mentions may still lie there.
    """
    return [
        i
        for i, donor in enumerate(donors)
        if references[donor].site and not may_be_here(references[donor].place, here.get(references[i].exam_id, ()))
    ]


def _swapped(reference: Reference, here: Collection[Place]) -> str | None:
    """The sentence about the other side; None where it names not just its own, or there may be a lesion there."""
    prompt, (site, side) = reference.prompt, reference.place
    other = {"left": "right", "right": "left"}.get(side)
    if prompt is None or other is None or not site or not names_one_side(prompt) or side not in prompt.lower():
        return None
    return None if may_be_here((site, other), here) else swap_sides(prompt)


def _prompt(question: Question | None) -> str:
    return "" if question is None else question.prompt


def shuffled_among_exams(exams: Sequence[str], prompts: Sequence[str], *, seed: int = 0) -> list[int] | None:
    """For each reference the index of the reference whose sentence it gets: never one of its own exam.

    Each sentence is used once where that can be (no exam holds more than half of the references); else the large
    exam's references draw from the others. Of several drawings the one is kept in which the fewest sentences read
    like the right one, letter for letter. None when there is only one exam: nothing to shuffle with.
    """
    n = len(exams)
    if len(set(exams)) < 2:
        return None
    rng = np.random.default_rng(seed)
    wording = [" ".join(p.lower().split()) for p in prompts]
    best: list[int] = []
    fewest = n + 1
    for _ in range(TRIES):
        drawn = _drawn(exams, rng)
        same = sum(wording[i] == wording[donor] for i, donor in enumerate(drawn))
        if same < fewest:
            best, fewest = drawn, same
        if same == 0:
            break
    return best


def _drawn(exams: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Exams in random order laid in one row, turned by the largest exam's length: each lands outside its own."""
    names = sorted(set(exams))
    place = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    order = sorted(rng.permutation(len(exams)).tolist(), key=lambda i: place[exams[i]])
    largest = max(Counter(exams).values())
    donors = [0] * len(exams)
    for at, reference in enumerate(order):
        donor = order[(at + largest) % len(order)]
        if exams[donor] == exams[reference]:
            donor = int(rng.choice([i for i, exam in enumerate(exams) if exam != exams[reference]]))
        donors[reference] = donor
    return donors
