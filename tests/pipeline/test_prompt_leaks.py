"""No prompt tells the answer: of a finding's own SUVmax and slice nothing is left, whatever the report's wording."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_phantom_reports import make_exam

from petground.labeling.extract import extract_findings
from petground.labeling.language import make_prompt
from petground.pipeline.phantom.reports import STYLES, write_report
from petground.pipeline.prompts import has_words, leaks

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
ANATOMY = re.compile(
    r"\b(?:[ctls] ?\d{1,2}(?:\s?[-/]\s?[ctls]?\d{1,2})?|\d{1,2}(?:st|nd|rd|th)|"
    r"(?:level|station|segment|zone|group)s? \d{1,2}[a-z]?|\d{1,2}[rl]\b)",
    re.IGNORECASE,
)
"""Numbers that name a place: L3, 5th rib, station 4R, segment 7. They are words, and may equal an SUV by chance."""


def _told(prompt: str, suv: float | None, number: int | None) -> list[str]:
    """Numbers in the prompt, those of anatomy aside, that are this finding's SUV or slice."""
    found = NUMBER.findall(ANATOMY.sub(" ", prompt))
    values = {word: float(word.replace(",", ".")) for word in found if len(re.findall("[.,]", word)) < 2}
    return [word for word, value in values.items() if value in (suv, number)]


def _gold(folder: Path) -> Iterator[tuple[str, str]]:
    for name in ("sentences_dev.jsonl", "reports_dev.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["id"], row["text"]


def test_no_prompt_of_the_gold_texts_tells_its_answer(gold_dir: Path) -> None:
    seen = 0
    for name, text in _gold(gold_dir):
        for finding in extract_findings(text):
            seen += 1
            prompt = finding.prompt or ""
            assert not leaks(prompt), name
            assert _told(prompt, finding.suv, finding.slice) == [], name
    assert seen > 200


@pytest.mark.parametrize("style", STYLES)
def test_no_prompt_of_a_phantom_report_tells_its_answer(style: str) -> None:
    seen = 0
    for seed in range(40):
        report = write_report(make_exam(seed), np.random.default_rng(seed), style=style)
        for finding in extract_findings(report.text):
            prompt = finding.prompt or ""
            assert not leaks(prompt)
            assert _told(prompt, finding.suv, finding.slice) == [], finding.status
            if finding.status == "positive":
                seen += 1
                assert has_words(prompt)
    assert seen > 40


SITES = st.sampled_from(
    ["left axillary node", "right hilar node", "lesion of the 5th rib", "L3 vertebra", "liver segment 7"]
)
FORMS = st.sampled_from(
    [
        "Avid {site}, SUVmax {suv}, slice {n}.",
        "Avid {site} (SUV max: {suv}; image {n}).",
        "There is a {site} with an SUVmax of {suv} on axial image {n}.",
        "Hypermetabolic {site} [SUVmax={suv}, im {n}]",
        "{site} on slice {n} with maximum SUV {suv} g/ml",
        "On axial slice {n} there is a {site}. Its SUVmax is {suv}.",
        "Focal uptake in a {site} is seen, SUVmax {suv} (series 4, image {n})",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(site=SITES, form=FORMS, suv=st.decimals("1.1", "60", places=1), n=st.integers(100, 700))
def test_a_users_sentence_is_stripped_of_them_and_keeps_its_words(site: str, form: str, suv: object, n: int) -> None:
    prompt = make_prompt(form.format(site=site, suv=suv, n=n))
    assert _told(prompt, float(str(suv)), n) == []
    assert not leaks(prompt)
    assert site in prompt
