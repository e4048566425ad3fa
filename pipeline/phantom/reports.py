"""Reports of phantom exams: every sentence is made from the truth, in one of several departments' ways of writing.

`write_report` draws a house (style, words for SUV and slice, units, dates), tells about nine in ten lesions with SUVmax
and slice, some without, and surrounds them with what makes real reports hard: reference tissue, physiologic uptake,
earlier values, negations, sizes, doses and an impression that repeats. No sentence is taken from a real report.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from petground.pipeline.phantom.records import Lesion, PhantomExam, PhantomReport
from petground.pipeline.phantom.report_frame import comparison, history, impression, technique
from petground.pipeline.phantom.report_lesions import (
    Telling,
    lesion_without_value,
    one_lesion,
    opinion,
    several_lesions,
)
from petground.pipeline.phantom.report_normal import REGIONS, negations, non_avid, physiologic, reference, resolved
from petground.pipeline.phantom.report_words import STYLES, House, Said, chance, choose_house, pick, rounded

__all__ = ["STYLES", "write_report"]

HEADS = {  # style -> section names in the order history, technique, comparison, findings, impression
    "structured": ("CLINICAL HISTORY:", "TECHNIQUE:", "COMPARISON:", "FINDINGS:", "IMPRESSION:"),
    "prose": ("INDICATION:", "TECHNIQUE:", "COMPARISON:", "FINDINGS:", "IMPRESSION:"),
    "dictated": ("Clinical history:", "Technique:", "Comparison:", "Findings:", "Impression:"),
    "terse": ("Indication:", "Technique:", "Comparison:", "Findings:", "Impression:"),
    "capitals": ("HISTORY:", "PROCEDURE:", "COMPARISON:", "FINDINGS:", "IMPRESSION:"),
    "bulleted": ("Reason for exam:", "Technique:", "Comparison:", "FINDINGS:", "CONCLUSION:"),
    "plain": ("", "", "", "", "In summary:"),
}
REGION_HEADS = {
    "structured": ("Head and neck", "Chest", "Abdomen", "Pelvis", "Musculoskeletal"),
    "capitals": ("HEAD/NECK", "CHEST", "ABDOMEN", "PELVIS", "BONES AND SOFT TISSUES"),
    "bulleted": ("Neck", "Chest", "Abdomen", "Pelvis", "Bones"),
}
WRAPPED = 0.04  # share of reports exported with hard line ends


def write_report(exam: PhantomExam, rng: np.random.Generator, *, style: str | None = None) -> PhantomReport:
    """A report on the exam; the same generator state gives the same text.

    style: a name of STYLES, or None to draw one. Raises ValueError for another name.
    """
    house = choose_house(rng, exam.patient.tracer, style)
    prior = chance(rng, 0.5)
    valued, unvalued = _fates(rng, exam.lesions)
    told = tuple(lesion for lesion in exam.lesions if lesion.lesion_id in valued | unvalued)
    opinions = {lesion.lesion_id: opinion(rng, lesion, exam.patient.tracer) for lesion in told}
    telling = Telling(exam, house, prior, _decimals(house, told), opinions, told)

    regions = {region: _region(rng, telling, region, valued) for region in REGIONS}
    background = reference(rng, exam, house) if chance(rng, 0.8) else None
    printed = {key: value for said in _flat(regions) for key, value in said.printed.items()}
    closing = impression(rng, telling, printed)
    method = technique(rng, exam, house)
    text = _compose(
        rng, house, [history(rng, exam, prior=prior), method.text, comparison(rng, exam, house, prior=prior)],
        regions, background, closing,
    )  # fmt: skip
    sentences = {key: said.text for said in _flat(regions) for key in said.told}
    if house.style == "capitals" and chance(rng, 0.35):
        text = text.upper()
        sentences = {key: sentence.upper() for key, sentence in sentences.items()}
    if chance(rng, WRAPPED):
        width = int(rng.integers(70, 101))
        text = "\n".join(textwrap.fill(line, width, break_on_hyphens=False) for line in text.split("\n"))
    everything = [method, *([background] if background else []), *_flat(regions), *closing]
    rows: tuple[dict[str, Any], ...] = tuple(row for said in everything for row in said.rows)
    return PhantomReport(text, sentences, frozenset(valued), printed, rows)


def _flat(regions: dict[str, list[Said]]) -> list[Said]:
    return [said for region in regions.values() for said in region]


def _fates(rng: np.random.Generator, lesions: Sequence[Lesion]) -> tuple[set[str], set[str]]:
    """Lesion ids told with SUVmax and slice (about 90 %), and told without one of them (8 %); the rest is missed."""
    draws = {lesion.lesion_id: float(rng.random()) for lesion in lesions}
    valued = {key for key, draw in draws.items() if draw < 0.9}
    unvalued = {key for key, draw in draws.items() if 0.9 <= draw < 0.98}
    if lesions and not valued:  # a report on an exam with disease gives at least one value
        hottest = max(lesions, key=lambda lesion: lesion.suv_max).lesion_id
        valued, unvalued = {hottest}, unvalued - {hottest}
    return valued, unvalued


def _decimals(house: House, lesions: Sequence[Lesion]) -> dict[str, int]:
    """One decimal as a rule; two where another lesion on the same slice would print the same number."""
    seen: set[tuple[str, int]] = set()
    decimals: dict[str, int] = {}
    for lesion in lesions:
        key = (rounded(lesion.suv_max, house.decimals), lesion.slice)
        decimals[lesion.lesion_id] = 2 if key in seen else house.decimals
        seen.add(key)
    return decimals


def _region(rng: np.random.Generator, telling: Telling, region: str, valued: set[str]) -> list[Said]:
    """Everything said of one region: lesions from the head down, then what is normal or absent."""
    exam, house = telling.exam, telling.house
    lesions = sorted((one for one in telling.told if one.region == region), key=lambda one: one.slice)
    with_value = [one for one in lesions if one.lesion_id in valued]
    said: list[Said] = []
    if len(with_value) >= 2 and chance(rng, 0.25):
        pair = with_value[0], with_value[1]
        said.append(several_lesions(rng, telling, pair))
        lesions = [one for one in lesions if one not in pair]
    said += [
        one_lesion(rng, telling, one) if one.lesion_id in valued else lesion_without_value(rng, telling, one)
        for one in lesions
    ]
    most = 1 if house.style in ("terse", "dictated") else 2
    rest = negations(rng, exam, house, region, most) + physiologic(rng, exam, house, region)
    extra = non_avid(rng, exam, house, region) if chance(rng, 0.06) else None
    if extra is None and telling.prior and chance(rng, 0.05):
        extra = resolved(rng, exam, house, region)
    return said + rest + ([extra] if extra else [])


def _compose(
    rng: np.random.Generator,
    house: House,
    opening: list[str],
    regions: dict[str, list[Said]],
    background: Said | None,
    closing: list[Said],
) -> str:
    heads = HEADS[house.style]
    gap = "\n" if house.style in ("structured", "capitals") and chance(rng, 0.5) else " "
    parts = [f"{head}{gap if head else ''}{body}" for head, body in zip(heads, opening, strict=False)]
    before = background is not None and chance(rng, 0.7)
    findings = _findings(rng, house, regions)
    if background is not None:
        findings = [background.text, *findings] if before else [*findings, background.text]
    blank = "\n\n" if house.style in ("prose", "plain") else "\n"
    body = blank.join(findings)
    parts.append(f"{heads[3]}\n{body}" if heads[3] else body)
    parts.append(_closing(rng, house, heads[4], [said.text for said in closing]))
    return "\n\n".join(parts) + ("\n" if chance(rng, 0.5) else "")


def _findings(rng: np.random.Generator, house: House, regions: dict[str, list[Said]]) -> list[str]:
    """Findings as this house sets them out: paragraphs by region, bullets, or a numbered list."""
    texts = {region: [said.text for said in saids] for region, saids in regions.items() if saids}
    if house.style in REGION_HEADS:
        names = dict(zip(REGIONS, REGION_HEADS[house.style], strict=True))
        if house.style == "bulleted":
            return [f"{names[region]}:\n" + "\n".join(f"- {line}" for line in lines) for region, lines in texts.items()]
        return [f"{names[region]}: {' '.join(lines)}" for region, lines in texts.items()]
    if house.style == "dictated":
        lesions = [said.text for saids in regions.values() for said in saids if said.told]
        others = [said.text for saids in regions.values() for said in saids if not said.told]
        mark = pick(rng, ("{n}. ", "{n}) "))
        return [*(mark.format(n=n) + line for n, line in enumerate(lesions, 1)), " ".join(others)]
    return [" ".join(lines) for lines in texts.values()]


def _closing(rng: np.random.Generator, house: House, head: str, lines: list[str]) -> str:
    if house.style in ("structured", "capitals", "dictated"):
        return "\n".join([head, *(f"{n}. {line}" for n, line in enumerate(lines, 1))])
    if house.style == "bulleted":
        return "\n".join([head, *(f"- {line}" for line in lines)])
    return f"{head} {' '.join(lines)}"
