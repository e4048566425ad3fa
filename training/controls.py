"""Controls that show whether a model reads: the same references with another exam's sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["shuffled_among_exams"]

TRIES = 32  # drawings looked at for one in which few sentences happen to be worded like the right one


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
