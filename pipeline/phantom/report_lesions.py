"""Sentences about lesions: the ordinary forms, priors, the harder forms, and lesions told without a value.

A template's slots: Full/full "A 1.8 cm FDG-avid left axillary node", Sized without the uptake word, Avid without the
size, the "the left axillary node", Bare*/... without article; tag "SUVmax 5.5", of "an SUVmax of 5.5", at "slice 88",
size, Uptake/uptake "intense FDG uptake", was ", previously 7.2" or nothing, tail an opinion or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petground.pipeline.phantom.records import Lesion, PhantomExam
from petground.pipeline.phantom.report_sites import core, is_bone, is_node, qualifier
from petground.pipeline.phantom.report_words import (
    House,
    Printed,
    Row,
    Said,
    article,
    avid,
    capital,
    chance,
    pick,
    rounded,
    row,
    size_text,
    uptake,
)

__all__ = ["Telling", "lesion_without_value", "one_lesion", "opinion", "several_lesions", "slots"]

SENTENCES = (
    "{Full} has {of} on {at}{was}{tail}.",
    "{Full} with {of} is seen on {at}{was}{tail}.",
    "There is {full} with {of} ({at}){was}{tail}.",
    "There is {full}, {tag}, {at}{was}{tail}.",
    "{Sized} shows {uptake}, {tag} ({at}){was}{tail}.",
    "{Sized} demonstrates {uptake} with {of} on {at}{was}{tail}.",
    "{Uptake} is present in {sized} ({tag}, {at}){was}{tail}.",
    "{Full} is noted ({tag}, {at}){was}{tail}.",
    "On {at} there is {full} with {of}{was}{tail}.",
    "{Avid} measures {size} and has {of} on {at}{was}{tail}.",
    "{Avid} ({tag}, {at}) measures {size}{tail}.",
    "{Uptake} is seen in {sized}, with {of} on {at}{was}{tail}.",
)
FRAGMENTS = (
    "{BareFull} ({tag}, {at}){was}{tail}.",
    "{BareFull}, {tag} ({at}){was}{tail}.",
    "{BareFull}, {tag}, {at}{was}{tail}.",
    "{BareSized} ({tag}, {at}){was}{tail}.",
    "{BareAvid} measuring {size}, {tag} ({at}){was}{tail}.",
)
ITEMS = (
    "{BareSized}: {tag}, {at}{was}.",
    "{BareFull}: {tag} ({at}){was}{tail}.",
    "{BareFull} with {of} on {at}{was}{tail}.",
    "{Uptake} in {sized}, {tag}, {at}{was}{tail}.",
    "{BareAvid}, {size}, {tag} on {at}{was}{tail}.",
)
WAS = (
    ", previously {o}",
    ", previously {o}",
    ", previously {t}",
    " (previously {o})",
    ", formerly {o}",
    ", compared with {o} previously",
    ", was {o} on the prior study",
)
PRIOR_FIRST = (
    "The maximum SUV of {the} has {changed} from {old} to {value} ({at}).",
    "{The}, previously with {of_old}, now has {of} on {at}.",
    "Compared with {tag_old} on the prior study, {the} now has {of} ({at}).",
    "{The} has {changed} in uptake, {tag} on {at} versus {old} previously.",
)
TWO_INDICES = (
    "{Full} has {of} (PET slice {n}, CT image {ct}){tail}.",
    "{Full}, {tag}, on PET slice {n} (CT slice {ct}).",
)
SERIES = ("{Full} has {of} (series {series}, image {n}){tail}.", "{Full} ({series}:{n}) has {of}{tail}.")
OF_STACK = ("{Full} is best seen on image {n} of {count} and has {of}{tail}.",)
MEAN = ("{Full} has {of} and SUVmean of {mean} on {at}{tail}.", "{Full} ({tag}, SUVmean {mean}, {at}){tail}.")
VOLUME = ("{Full} has {of} on {at} and a metabolic volume of {ml} mL.",)
LIVER = ("{Full} has {of} on {at}, compared with liver SUVmax of {liver}.",)
PAIRS = (
    "{Sized} and {two[sized]} show {suv} of {value} and {two[value]} on {unit}s {n} and {two[n]}, respectively.",
    "{Hot} foci include {sized} ({tag}, {at}) and {two[sized]} ({two[tag]}, {two[at]}).",
    "On {at} there is {full} with {of}, and on {two[at]} {two[full]} with {two[of]}.",
    "{Full}, {tag} ({at}); {two[full]}, {two[tag]} ({two[at]}).",
    "{Full} has {of} ({at}) and {two[full]} has {two[of]} ({two[at]}).",
)
NEXT = (
    "There is {full}. It has {of} on {at}{was}.",
    "{Full} is identified. {Tag} on {at}{was}.",
    "{Uptake} is present in {sized}. The lesion has {of} ({at}){was}.",
    "{Avid} measures {size}. {Tag}, {at}{was}.",
)
OPINIONS = {
    "low node": ("possibly reactive", "nonspecific", "favored reactive"),
    "low": ("nonspecific", "indeterminate", "attention on follow-up"),
    "DOTATATE": ("consistent with neuroendocrine metastasis", "consistent with somatostatin receptor expression"),
    "node": ("suspicious for nodal metastasis", "compatible with nodal disease", "highly suspicious"),
    "bone": ("suspicious for osseous metastasis", "consistent with metastasis", "concerning for metastasis"),
    "other": ("suspicious for malignancy", "concerning for metastasis", "compatible with tumor"),
}
LOW_SUV = 3.5  # [g/ml]; below, this house hedges
POOLS = {"terse": FRAGMENTS, "dictated": ITEMS, "bulleted": ITEMS, "capitals": FRAGMENTS + SENTENCES[:5]}
NO_SLICE = ("{Full} has {of}{tail}.", "{Sized} shows {uptake} with {of}{tail}.")
NO_SUV = (
    "{Full} is seen on {at}{tail}.",
    "{Sized} shows {uptake} on {at}{tail}.",
    "{Full} is also noted{tail}.",
    "There is {full}{tail}.",
)


@dataclass(frozen=True)
class Telling:
    """What the sentence writers need: the exam, how the house writes, what is compared with, how much prior there is.

    decimals: lesion_id -> decimals printed. prior: a comparison PET exists.
    opinions: lesion_id -> what is thought of it. told: lesions the report tells at all.
    """

    exam: PhantomExam
    house: House
    prior: bool
    decimals: dict[str, int]
    opinions: dict[str, str]
    told: tuple[Lesion, ...]


def opinion(rng: np.random.Generator, lesion: Lesion, tracer: str) -> str:
    """What the radiologist thinks of it, hedged when uptake is low."""
    kind = "node" if is_node(lesion) else "bone" if is_bone(lesion) else "other"
    if lesion.suv_max < LOW_SUV:
        return pick(rng, OPINIONS["low node" if kind == "node" else "low"])
    return pick(rng, OPINIONS["DOTATATE" if tracer == "DOTATATE" else kind])


def slots(rng: np.random.Generator, telling: Telling, lesion: Lesion) -> dict[str, str]:
    """The words for one lesion, drawn once, for any template. Every fact comes from the lesion."""
    house, tracer = telling.house, telling.exam.patient.tracer
    name = core(rng, lesion)
    if which := qualifier(lesion, telling.told):
        name = f"{which} {name}"
    size = size_text(rng, house, lesion, two=chance(rng, 0.2))
    hot = avid(rng, house, lesion.suv_max)
    value = rounded(lesion.suv_max, telling.decimals[lesion.lesion_id])
    kind = uptake(rng, tracer, lesion.suv_max)
    words = {
        "full": article(f"{size} {hot} {name}"),
        "sized": article(f"{size} {name}"),
        "avid": article(f"{hot} {name}"),
        "the": f"the {name}",
        "uptake": kind,
        "tag": house.tag(value),
    }
    words |= {word.capitalize(): capital(text) for word, text in words.items()}
    # Fragments begin a line and have no article.
    words |= {
        "BareFull": capital(f"{size} {hot} {name}"),
        "BareSized": capital(f"{size} {name}" if chance(rng, 0.6) else name),
        "BareAvid": capital(f"{hot} {name}"),
        "name": name,
        "size": size,
        "value": value,
        "of": article(f"{house.suv} of {value}"),
        "at": house.slice(lesion.slice),
        "n": str(lesion.slice),
        "was": "",
        "tail": f", {telling.opinions[lesion.lesion_id]}" if chance(rng, 0.25) else "",
    }
    return words


def _old_value(rng: np.random.Generator, value: str, decimals: int) -> str:
    """A made-up earlier SUVmax, clearly other than today's."""
    factor = rng.uniform(0.45, 0.85) if chance(rng, 0.4) else rng.uniform(1.15, 2.1)
    return rounded(max(1.0, float(value) * float(factor) + (0.1 if factor > 1 else -0.1)), decimals)


def _was(rng: np.random.Generator, house: House, old: str) -> str:
    return pick(rng, WAS).format(o=old, t=house.tag(old))


def one_lesion(rng: np.random.Generator, telling: Telling, lesion: Lesion) -> Said:
    """One lesion with SUVmax and slice: ordinary forms in nine of ten, a harder one otherwise."""
    house = telling.house
    words = slots(rng, telling, lesion)
    old = _old_value(rng, words["value"], telling.decimals[lesion.lesion_id])
    rows = [row(words["value"], lesion.slice, None)]
    draw = rng.random()
    if telling.prior and draw < 0.06:
        form = pick(rng, PRIOR_FIRST)
        words["changed"] = "increased" if float(old) < float(words["value"]) else "decreased"
        words |= {"old": old, "tag_old": house.tag(old), "of_old": article(f"{house.suv} of {old}")}
        rows.append(row(old, None, "prior"))
    elif 0.06 <= draw < 0.17:
        form = _harder(rng, telling, lesion, words, rows)
    else:
        form = pick(rng, POOLS.get(house.style, SENTENCES))
        if telling.prior and "{was}" in form and chance(rng, 0.3):
            words["was"] = _was(rng, house, old)
            rows.append(row(old, None, "prior"))
    text = form.format_map(words)
    return Said(text, tuple(rows), {lesion.lesion_id: _printed(telling, lesion)}, (lesion.lesion_id,))


def _harder(rng: np.random.Generator, telling: Telling, lesion: Lesion, words: dict[str, str], rows: list[Row]) -> str:
    """A template of the rarer kinds; adds its words and its rows."""
    exam = telling.exam
    kind = pick(rng, ("next", "next", "next", "ct", "series", "stack", "mean", "volume", "liver"))
    if kind == "ct":
        k = round(float(exam.ct.to_index(exam.pet.to_world_mm(lesion.voxel_ijk))[2]))
        count = exam.ct.shape[2]
        if 0 <= k < count:
            words["ct"] = str(count - k if exam.ct.head_is_last else k + 1)
            return pick(rng, TWO_INDICES)
    if kind == "series":
        words["series"] = str(int(rng.integers(2, 8)))
        return pick(rng, SERIES)
    if kind == "stack":
        words["count"] = str(exam.pet.shape[2])
        return pick(rng, OF_STACK)
    if kind == "mean":
        words["mean"] = rounded(float(exam.pet.array[lesion.mask].mean()), telling.decimals[lesion.lesion_id])
        rows.append(row(words["mean"], lesion.slice, "not_max"))
        return pick(rng, MEAN)
    if kind == "volume":
        words["ml"] = rounded(lesion.volume_ml, 1)
        return pick(rng, VOLUME)
    if kind == "liver" and "liver" in exam.normal:
        words["liver"] = rounded(exam.normal["liver"], 1)
        rows.append(row(words["liver"], None, "reference"))
        return pick(rng, LIVER)
    return pick(rng, NEXT)


def several_lesions(rng: np.random.Generator, telling: Telling, pair: tuple[Lesion, Lesion]) -> Said:
    """Two lesions in one sentence, each with its SUVmax and slice."""
    house = telling.house
    first, second = pair if chance(rng, 0.7) else pair[::-1]
    one, two = slots(rng, telling, first), slots(rng, telling, second)
    unit = house.at.replace("{n}", "").strip()
    text = pick(rng, PAIRS).format_map({**one, "two": two, "suv": house.suv, "unit": unit, "Hot": capital(house.avid)})
    rows = (row(one["value"], first.slice, None), row(two["value"], second.slice, None))
    printed: dict[str, Printed] = {lesion.lesion_id: _printed(telling, lesion) for lesion in pair}
    return Said(text, rows, printed, (first.lesion_id, second.lesion_id))


def _printed(telling: Telling, lesion: Lesion) -> Printed:
    return rounded(lesion.suv_max, telling.decimals[lesion.lesion_id]), lesion.slice


def lesion_without_value(rng: np.random.Generator, telling: Telling, lesion: Lesion) -> Said:
    """A lesion told without SUV, or with an SUV but no slice."""
    words = slots(rng, telling, lesion)
    if chance(rng, 0.4):
        text = pick(rng, NO_SLICE).format_map(words)
        return Said(
            text,
            (row(words["value"], None, "no_slice"),),
            {lesion.lesion_id: (words["value"], None)},
            (lesion.lesion_id,),
        )
    return Said(pick(rng, NO_SUV).format_map(words), told=(lesion.lesion_id,))
