"""Small change of report language: how a house prints an SUV, a slice, a size, a date; articles and capitals."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypeVar

import numpy as np

from petground.pipeline.phantom.records import Lesion

__all__ = [
    "House",
    "Printed",
    "Row",
    "Said",
    "article",
    "avid",
    "axis_mm",
    "capital",
    "chance",
    "choose_house",
    "date_text",
    "intensity",
    "join_and",
    "pick",
    "rounded",
    "row",
    "size_text",
    "uptake",
]

T = TypeVar("T")
Row = dict[str, Any]  # {"suv", "slice", "reason"}: see PhantomReport.truth
Printed = tuple[str, "int | None"]  # SUV and slice as they stand in the text

STYLES = ("structured", "prose", "dictated", "terse", "capitals", "bulleted", "plain")


@dataclass(frozen=True)
class House:
    """How one department writes.

    suv, join: "SUVmax" + " " + "5.5"; at: the slice, with {n}; unit: cm | mm; activity: mCi | MBq;
    date: strftime pattern; avid: the word for uptake that is abnormal, chosen once per report.
    """

    style: str
    suv: str
    join: str
    at: str
    decimals: int
    unit: str
    activity: str
    date: str
    avid: str

    def tag(self, value: str) -> str:
        return f"{self.suv}{self.join}{value}"

    def slice(self, number: int) -> str:
        return self.at.format(n=number)


@dataclass(frozen=True)
class Said:
    """A piece of text with the rows about every SUV printed in it, and the lesions it tells.

    printed: lesion_id -> (SUV, slice) as printed; told: lesion ids of all lesions told here, value or not.
    """

    text: str
    rows: tuple[Row, ...] = ()
    printed: dict[str, Printed] = field(default_factory=dict)
    told: tuple[str, ...] = ()


AVID = {
    "FDG": ("hypermetabolic", "FDG-avid", "FDG avid", "hypermetabolic"),
    "DOTATATE": ("DOTATATE-avid", "tracer-avid", "DOTATATE avid"),
    "DCFPyL": ("PSMA-avid", "tracer-avid", "PSMA avid"),
    "fluciclovine": ("fluciclovine-avid", "tracer-avid", "fluciclovine avid"),
}
UPTAKE = {
    "FDG": ("FDG uptake", "hypermetabolism", "metabolic activity", "radiotracer uptake"),
    "DOTATATE": ("DOTATATE uptake", "radiotracer uptake", "tracer accumulation"),
    "DCFPyL": ("PSMA uptake", "radiotracer uptake", "tracer accumulation"),
    "fluciclovine": ("fluciclovine uptake", "radiotracer uptake", "tracer uptake"),
}
# Words by SUVmax: (below this, adjectives, adverbs); the bounds are ours, in line with everyday reading.
GRADES = (
    (3.5, ("mild", "low-grade", "faint"), ("mildly", "faintly")),
    (7.0, ("moderate", "definite"), ("moderately", "clearly")),
    (np.inf, ("intense", "marked", "strong"), ("intensely", "markedly", "strongly")),
)

SUV_WORDS = ("SUVmax", "SUVmax", "SUVmax", "SUV max", "SUV max", "maximum SUV", "max SUV", "SUV")
JOINS = (" ", " ", " ", " of ", ": ", " = ")
AT = (
    "slice {n}",
    "slice {n}",
    "slice {n}",
    "axial slice {n}",
    "axial slice {n}",
    "image {n}",
    "axial image {n}",
    "PET/CT axial slice {n}",
    "PET slice {n}",
)
DATES = ("%m/%d/%Y", "%m/%d/%Y", "%B %d, %Y", "%Y-%m-%d", "%d %b %Y")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def choose_house(rng: np.random.Generator, tracer: str, style: str | None) -> House:
    """A house's habits, drawn once per report. Raises ValueError for a style that is not in STYLES."""
    if style is not None and style not in STYLES:
        raise ValueError(f"no report style '{style}'; known: {', '.join(STYLES)}")
    drawn = pick(rng, STYLES)
    house = House(
        style=style or drawn,
        suv=pick(rng, SUV_WORDS),
        join=pick(rng, JOINS),
        at=pick(rng, AT),
        decimals=2 if chance(rng, 0.1) else 1,
        unit="mm" if chance(rng, 0.3) else "cm",
        activity="MBq" if chance(rng, 0.35) else "mCi",
        date=pick(rng, DATES),
        avid=pick(rng, AVID.get(tracer, ("tracer-avid",))),
    )
    # A list item has its colon behind the lesion already.
    return replace(house, join=" ") if house.style in ("dictated", "bulleted") and house.join == ": " else house


def rounded(value: float, decimals: int) -> str:
    """The number as a person rounds it, half up: 5.25 -> "5.3"; what was printed stands for [5.25, 5.35)."""
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))


def row(suv: str, slice: int | None, reason: str | None) -> Row:
    return {"suv": float(suv), "slice": slice, "reason": reason}


def intensity(rng: np.random.Generator, suv: float, *, adverb: bool) -> str:
    adjectives, adverbs = next((adjectives, adverbs) for below, adjectives, adverbs in GRADES if suv < below)
    return pick(rng, adverbs if adverb else adjectives)


def avid(rng: np.random.Generator, house: House, suv: float) -> str:
    """For example "hypermetabolic" or "intensely FDG-avid"; an adverb only before a word that bears one."""
    if chance(rng, 0.4):
        return f"{intensity(rng, suv, adverb=True)} {house.avid}"
    return house.avid


def uptake(rng: np.random.Generator, tracer: str, suv: float) -> str:
    kind = pick(rng, UPTAKE.get(tracer, ("radiotracer uptake",)))
    return f"{intensity(rng, suv, adverb=False)} {'focal ' if chance(rng, 0.3) else ''}{kind}"


def axis_mm(lesion: Lesion) -> float:
    """Short axis [mm] of the ellipsoid of revolution with the lesion's volume and longest diameter."""
    short = float(np.sqrt(6.0 * lesion.volume_ml * 1000.0 / (np.pi * lesion.diameter_mm)))
    return min(short, lesion.diameter_mm)


def size_text(rng: np.random.Generator, house: House, lesion: Lesion, *, two: bool) -> str:
    """ "1.8 cm", "18 mm" or, with `two`, "1.8 x 1.5 cm"."""

    def number(mm: float) -> str:
        return rounded(mm / 10.0, 1) if house.unit == "cm" else rounded(mm, 0)

    if two:
        return f"{number(lesion.diameter_mm)} x {number(axis_mm(lesion))} {house.unit}"
    return f"{number(lesion.diameter_mm)} {house.unit}"


def date_text(house: House, date: datetime.date) -> str:
    return date.strftime(house.date)


# 8, 11 and 18 begin with a vowel when read aloud, as do L3, S1, F-18, FDG and SUV; "u" does not when read "you".
_VOWEL = re.compile(r"(8|11\b|18\b|[aeio]|u(?!ni|re|te)|[LSF](\d|DG|-18|UV)|S\d)")


def article(words: str) -> str:
    return f"{'an' if _VOWEL.match(words if words[:1] in 'LSF' else words.lower()) else 'a'} {words}"


def capital(words: str) -> str:
    """First letter upper-case, the rest as it is (str.capitalize would spoil FDG and T11)."""
    return words[:1].upper() + words[1:]


def join_and(parts: Sequence[str]) -> str:
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
