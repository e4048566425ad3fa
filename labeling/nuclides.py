"""Positron emitters: half-lives, and how DICOM names them (PS3.16 CID 4020, in SNOMED CT, SNOMED RT and DCM codes)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["HALF_LIFE_S", "Nuclide", "agrees", "nuclide_of_code", "nuclide_of_words"]


class Nuclide(NamedTuple):
    """name: element and mass number, "F-18". half_life_s: seconds. codes: (scheme, value) pairs that mean it."""

    name: str
    half_life_s: float
    codes: tuple[tuple[str, str], ...]


_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
# Half-lives: ENSDF, as in the NuDat 3 chart of the National Nuclear Data Center.
NUCLIDES = (
    Nuclide("C-11", 20.364 * _MINUTE, (("SCT", "40565003"), ("SRT", "C-105A1"))),
    Nuclide("N-13", 9.965 * _MINUTE, (("SCT", "21576001"), ("SRT", "C-107A1"))),
    Nuclide("O-14", 70.62, (("SCT", "424875009"), ("SRT", "C-1018C"))),
    Nuclide("O-15", 122.24, (("SCT", "129504001"), ("SRT", "C-B1038"))),
    Nuclide("F-18", 109.77 * _MINUTE, (("SCT", "77004003"), ("SRT", "C-111A1"))),
    Nuclide("K-38", 7.636 * _MINUTE, (("SCT", "423764008"), ("SRT", "C-135A4"))),
    Nuclide("Sc-43", 3.891 * _HOUR, (("DCM", "126605"),)),
    Nuclide("Sc-44", 4.0421 * _HOUR, (("DCM", "126600"),)),
    Nuclide("Mn-51", 46.2 * _MINUTE, (("DCM", "126601"),)),
    Nuclide("Mn-52", 5.591 * _DAY, (("SCT", "37225000"), ("SRT", "C-149A1"))),
    Nuclide("Mn-52m", 21.1 * _MINUTE, (("DCM", "126607"),)),
    Nuclide("Fe-52", 8.275 * _HOUR, (("SCT", "69089000"), ("SRT", "C-130A1"))),
    Nuclide("Cu-60", 23.7 * _MINUTE, (("SCT", "425364008"), ("SRT", "C-127A4"))),
    Nuclide("Cu-61", 3.339 * _HOUR, (("SCT", "71425003"), ("SRT", "C-127A1"))),
    Nuclide("Cu-62", 9.67 * _MINUTE, (("SCT", "422934004"), ("SRT", "C-127A5"))),
    Nuclide("Cu-64", 12.701 * _HOUR, (("SCT", "3932008"), ("SRT", "C-127A2"))),
    Nuclide("Zn-62", 9.193 * _HOUR, (("SCT", "65054007"), ("SRT", "C-141A1"))),
    Nuclide("Ga-66", 9.304 * _HOUR, (("SCT", "79477007"), ("SRT", "C-131A1"))),
    Nuclide("Ga-68", 67.71 * _MINUTE, (("SCT", "35337001"), ("SRT", "C-131A3"))),
    Nuclide("As-72", 26.0 * _HOUR, (("SCT", "2705002"), ("SRT", "C-115A2"))),
    Nuclide("Br-75", 96.7 * _MINUTE, (("SCT", "17910003"), ("SRT", "C-113A1"))),
    Nuclide("Br-76", 16.2 * _HOUR, (("SCT", "79523006"), ("SRT", "C-113A2"))),
    Nuclide("Rb-82", 1.2575 * _MINUTE, (("SCT", "79197006"), ("SRT", "C-159A2"))),
    Nuclide("Y-86", 14.74 * _HOUR, (("SCT", "10738001"), ("SRT", "C-162A3"))),
    Nuclide("Y-90", 64.05 * _HOUR, (("SCT", "14691008"), ("SRT", "C-162A7"))),
    Nuclide("Zr-89", 78.41 * _HOUR, (("SCT", "63360001"), ("SRT", "C-168A4"))),
    Nuclide("Tc-94m", 52.0 * _MINUTE, (("SCT", "424079002"), ("SRT", "C-163AA"))),
    Nuclide("I-124", 4.1760 * _DAY, (("SCT", "40937006"), ("SRT", "C-114A5"))),
    Nuclide("Tb-152", 17.5 * _HOUR, (("DCM", "126606"),)),
)
HALF_LIFE_S = {nuclide.name: nuclide.half_life_s for nuclide in NUCLIDES}
AGREEMENT = 0.05  # scanners' tables differ by up to 1 %; the nearest pair of nuclides in use (N-13, Cu-62) by 3 %

_BY_CODE = {(scheme, value): nuclide.name for nuclide in NUCLIDES for scheme, value in nuclide.codes}
_SCHEMES = {"SNM3": "SRT", "99SDM": "SRT", "SNOMED": "SRT"}  # earlier designators of SNOMED RT
_ELEMENTS = {
    "carbon": "C", "nitrogen": "N", "oxygen": "O", "fluorine": "F", "fluor": "F", "potassium": "K", "scandium": "Sc",
    "manganese": "Mn", "iron": "Fe", "copper": "Cu", "zinc": "Zn", "gallium": "Ga", "arsenic": "As", "bromine": "Br",
    "rubidium": "Rb", "yttrium": "Y", "zirconium": "Zr", "technetium": "Tc", "iodine": "I", "terbium": "Tb",
}  # fmt: skip
_SYMBOLS = {symbol.lower(): symbol for symbol in _ELEMENTS.values()}
_WORDS = re.compile(r"\^?(\d{1,3}m?)\^?[ \-]*([a-z]{1,12})|([a-z]{1,12})[ \-]*\^?(\d{1,3}m?)(?![0-9a-z])\^?", re.I)


def nuclide_of_code(scheme: str | None, value: str | None) -> str | None:
    """Name of the nuclide that a code of CID 4020 means, None for any other code."""
    scheme = (scheme or "").strip().upper()
    return _BY_CODE.get((_SCHEMES.get(scheme, scheme), (value or "").strip().upper()))


def nuclide_of_words(words: str | None) -> str | None:
    """Name of the nuclide in a code's meaning: "^18^Fluorine", "Fluorine-18", "F18"; None where none is seen."""
    for match in _WORDS.finditer(words or ""):
        mass, element = (match[1], match[2]) if match[1] else (match[4], match[3])
        symbol = _ELEMENTS.get(element.lower()) or _SYMBOLS.get(element.lower())
        name = f"{symbol}-{mass.lower()}"
        if symbol and name in HALF_LIFE_S:
            return name
    return None


def agrees(half_life_s: float, nuclide: str) -> bool:
    """Whether a half-life is that of the nuclide, as scanners' tables write it."""
    known = HALF_LIFE_S[nuclide]
    return abs(half_life_s - known) <= AGREEMENT * known
