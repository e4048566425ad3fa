"""Stated sizes: the lesion's own and today's, not an earlier one, a distance, a change or a part."""

from __future__ import annotations

import json
import time
from importlib.resources import files

import pytest

from petground.labeling.extract import extract_findings

RULES = json.loads(files("petground.labeling.language").joinpath("sizes.json").read_text(encoding="utf-8"))
EXAMPLES = [(rule["example"], rule["expect"]) for rule in RULES["rules"]] + [tuple(one) for one in RULES["examples"]]


def sizes(text: str) -> list[float | None]:
    return [f.size_mm for f in extract_findings(f"FINDINGS: {text}") if f.status == "positive"]


@pytest.mark.parametrize(("text", "wanted"), EXAMPLES)
def test_examples(text: str, wanted: float | None) -> None:
    assert sizes(text) == [wanted]


def test_each_of_several_lesions_has_its_own() -> None:
    assert sizes("Left node 1.5 cm SUVmax 5.5 slice 104 and right node 2.2 cm SUVmax 7.7 slice 99.") == [15, 22]
    text = "Foci include a 1.5 cm node in the mesentery (SUV max 8.3, slice 176) and a 2.3 x 1.8 cm lesion in segment"
    assert sizes(f"{text} III of the liver (SUV max 15.2, slice 143).") == [15, 23]
    text = "Left node (SUVmax 5.5, slice 104) measures 1.5 cm; right node (SUVmax 7.1, slice 99) measures 22 mm."
    assert sizes(text) == [15, 22]


def test_a_size_goes_no_further_than_its_lesion() -> None:
    assert sizes("Right upper lobe nodule measures 1.2 cm. Left hilar node, SUVmax 6.1, slice 90.") == [None]


def test_a_line_full_of_sizes_is_read_quickly() -> None:
    line = "1.5 cm previously from 2.1 cm to " * 800 + "SUVmax 5.5, slice 104."
    seconds = []
    for _ in range(3):
        start = time.process_time()
        extract_findings(line)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
