"""Names of places: each site of the phantom in the several ways a radiologist may say it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from petground.pipeline.phantom.records import Lesion
from petground.pipeline.phantom.report_words import chance, pick

__all__ = ["ambiguous_among", "core", "is_bone", "is_node", "qualifier"]

Forms = tuple[tuple[str, ...], tuple[str, ...]]

# site without its last noun -> (forms before the noun, forms behind it); {side} falls away at the midline.
PLACES: dict[str, Forms] = {
    "cervical": (("{side} cervical", "{side} cervical", "{side} neck"), ("in the {side} neck",)),
    "supraclavicular": (("{side} supraclavicular",), ("in the {side} supraclavicular fossa",)),
    "axillary": (("{side} axillary",), ("in the {side} axilla",)),
    "subpectoral": (("{side} subpectoral",), ("beneath the {side} pectoral muscle",)),
    "internal mammary": (("{side} internal mammary",), ("along the {side} internal mammary chain",)),
    "mediastinal": (("{side} mediastinal",), ("in the {side} mediastinum",)),
    "anterior mediastinal": (("anterior mediastinal",), ("in the anterior mediastinum",)),
    "prevascular": (("{side} prevascular",), ("in the {side} prevascular space",)),
    "paratracheal": (("{side} paratracheal",), ("in the {side} paratracheal station",)),
    "upper paratracheal": (("{side} upper paratracheal",), ("in the {side} upper paratracheal station",)),
    "lower paratracheal": (("{side} lower paratracheal",), ("in the {side} lower paratracheal station",)),
    "subcarinal": (("subcarinal",), ("in the subcarinal station", "below the carina")),
    "hilar": (("{side} hilar",), ("at the {side} hilum", "in the {side} pulmonary hilum")),
    "upper lobe": (("{side} upper lobe",), ("in the {side} upper lobe", "in the upper lobe of the {side} lung")),
    "middle lobe": (("{side} middle lobe",), ("in the {side} middle lobe",)),
    "lower lobe": (("{side} lower lobe",), ("in the {side} lower lobe", "in the lower lobe of the {side} lung")),
    "lingular": (("lingular",), ("in the lingula",)),
    "breast": (("{side} breast",), ("in the {side} breast",)),
    "adrenal": (("{side} adrenal",), ("in the {side} adrenal gland", "of the {side} adrenal gland")),
    "para-aortic": (("{side} para-aortic", "{side} retroperitoneal para-aortic"), ("in the {side} para-aortic chain",)),
    "retroperitoneal": (("{side} retroperitoneal",), ("in the {side} retroperitoneum",)),
    "mesenteric": (("{side} mesenteric",), ("in the {side} mesentery",)),
    "peripancreatic": (("peripancreatic",), ("adjacent to the pancreatic head",)),
    "peritoneal": (("{side} peritoneal",), ("along the {side} paracolic gutter",)),
    "pancreatic": (("pancreatic",), ("in the pancreas",)),
    "splenic": (("splenic",), ("in the spleen",)),
    "common iliac": (("{side} common iliac",), ("along the {side} common iliac vessels",)),
    "external iliac": (("{side} external iliac",), ("along the {side} external iliac vessels",)),
    "internal iliac": (("{side} internal iliac",), ("along the {side} internal iliac vessels",)),
    "iliac": (("{side} iliac",), ("along the {side} iliac vessels",)),
    "obturator": (("{side} obturator",), ("in the {side} obturator region",)),
    "pelvic": (("{side} pelvic",), ("in the {side} hemipelvis",)),
    "pelvic sidewall": (("{side} pelvic sidewall",), ("at the {side} pelvic sidewall",)),
    "presacral": (("{side} presacral",), ("in the {side} presacral space",)),
    "inguinal": (("{side} inguinal", "{side} inguinal", "{side} groin"), ("in the {side} groin",)),
    "iliac bone": (("{side} iliac bone",), ("in the {side} iliac bone", "in the {side} ilium")),
    "iliac wing": (("{side} iliac wing",), ("in the {side} iliac wing", "in the wing of the {side} ilium")),
    "sacral": (("{side} sacral",), ("in the {side} sacrum",)),
    "sacral ala": (("{side} sacral ala",), ("in the {side} sacral ala",)),
    "femoral": (("{side} femoral",), ("in the {side} femur",)),
    "proximal femoral": (("{side} proximal femoral",), ("in the proximal {side} femur",)),
    "humeral head": (("{side} humeral head",), ("in the {side} humeral head",)),
    "humeral": (("{side} humeral",), ("in the {side} humerus",)),
    "scapular": (("{side} scapular",), ("in the {side} scapula",)),
    "clavicular": (("{side} clavicular",), ("in the {side} clavicle",)),
    "sternal": (("sternal",), ("in the sternum",)),
    "acetabular": (("{side} acetabular",), ("in the {side} acetabulum",)),
    "ischial": (("{side} ischial",), ("in the {side} ischium",)),
    "pubic": (("{side} pubic",), ("in the {side} pubic bone",)),
    "gluteal": (("{side} gluteal",), ("in the {side} gluteal muscle",)),
    "thyroid": (("{side} thyroid",), ("in the {side} thyroid lobe",)),
    "parotid": (("{side} parotid",), ("in the {side} parotid gland",)),
}
NOUNS: dict[str, tuple[str, ...]] = {
    "node": ("lymph node", "node", "node"),
    "nodule": ("nodule",),
    "lesion": ("lesion", "lesion", "focus"),
    "mass": ("mass",),
    "metastasis": ("metastasis", "lesion"),
    "focus": ("focus",),
}
ORDINALS = {
    "1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth", "6th": "sixth",
    "7th": "seventh", "8th": "eighth", "9th": "ninth", "10th": "tenth", "11th": "eleventh", "12th": "twelfth",
}  # fmt: skip
ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii")
FOCUS_MM = 20.0  # nobody calls a large lesion a focus
MASS_MM = 30.0  # a lung nodule above 3 cm is a mass (Fleischner Society glossary, Radiology 2008;246:697)

_SEGMENT = re.compile(r"(?:hepatic|liver) segment ([iv]+[ab]?|\d[ab]?)")
_LEVEL = re.compile(r"(?:cervical )?level ([iv]+[ab]?)(?: cervical| neck)?$")
_VERTEBRA = re.compile(r"\b([ctls]\d{1,2})\b(?: (?:vertebral body|vertebral|vertebra))?")
_RIB = re.compile(r"(?:(anterior|posterior|lateral) )?(\d{1,2}(?:st|nd|rd|th)) rib")


def _forms(place: str) -> Forms:
    if segment := _SEGMENT.fullmatch(place):
        name = segment[1].upper()
        arabic = re.sub("[IV]+", lambda roman: str(ROMAN.index(roman[0].lower()) + 1), name)  # IVA -> 4A
        before = (
            f"hepatic segment {name}",
            f"segment {name} hepatic",
            f"segment {name} liver",
            f"segment {arabic} liver",
        )
        return before, (f"in hepatic segment {name}", f"in segment {name} of the liver")
    if level := _LEVEL.fullmatch(place):
        name = level[1].upper()
        return (f"{{side}} level {name} cervical", f"{{side}} cervical level {name}"), (
            f"at level {name} of the {{side}} neck",
        )
    if vertebra := _VERTEBRA.fullmatch(place):
        name = vertebra[1].upper()
        return (f"{name} vertebral body", f"{name} vertebral", name), (f"in the {name} vertebral body", f"in {name}")
    if rib := _RIB.fullmatch(place):
        where = f"{rib[1]} " if rib[1] else ""
        names = (f"{{side}} {where}{rib[2]} rib", f"{{side}} {where}{ORDINALS.get(rib[2], rib[2])} rib")
        return names, tuple(f"in the {name}" for name in names)
    if place in PLACES:
        return PLACES[place]
    named = _VERTEBRA.sub(lambda found: found[0].upper() if found[0] == found[1] else found[0], place)
    return (f"{{side}} {named}",), ()


def core(rng: np.random.Generator, lesion: Lesion, *, plain: bool = False) -> str:
    """Side, place and noun: "left axillary lymph node", "node in the left axilla". `plain` keeps to noun last."""
    words = lesion.site.lower().split()
    noun = words[-1] if words[-1] in NOUNS else ""
    before, behind = _forms(" ".join(words[:-1]) if noun else lesion.site.lower())
    name = pick(rng, NOUNS[noun]) if noun else ""
    if noun == "nodule" and lesion.diameter_mm > MASS_MM:
        name = "mass"
    if noun == "node" and lesion.diameter_mm > MASS_MM:
        name = "nodal mass"
    if name == "focus" and lesion.diameter_mm > FOCUS_MM:
        name = "lesion"
    side = lesion.laterality or ""
    if name and behind and not plain and chance(rng, 0.3):
        phrase = f"{name} {pick(rng, behind)}"
    elif side and noun == "node" and not plain and chance(rng, 0.08):
        return " ".join(f"{before[0].format(side='')} {name} on the {side}".split())
    else:
        phrase = f"{pick(rng, before)} {name}"
    return " ".join(phrase.format(side=side).split())


def is_node(lesion: Lesion) -> bool:
    return lesion.site.endswith("node")


def is_bone(lesion: Lesion) -> bool:
    return lesion.region == "musculoskeletal" and not any(word in lesion.site for word in ("musc", "glute", "thigh"))


def ambiguous_among(lesion: Lesion, lesions: Sequence[Lesion]) -> list[Lesion]:
    """The lesions, this one included, of the same site and side, from the head down."""
    alike = [other for other in lesions if (other.site, other.laterality) == (lesion.site, lesion.laterality)]
    return sorted(alike, key=lambda other: (other.slice, -other.diameter_mm))


def qualifier(lesion: Lesion, lesions: Sequence[Lesion]) -> str:
    """A word that tells this lesion from its likes: "more cranial", "larger"; empty when site and side suffice."""
    alike = ambiguous_among(lesion, lesions)
    if len(alike) < 2:
        return ""
    rank = [other.lesion_id for other in alike].index(lesion.lesion_id)
    if alike[0].slice == alike[-1].slice:
        return "larger" if rank == 0 else "smaller"
    if rank == 0:
        return "more cranial"
    return "more caudal" if rank == len(alike) - 1 else "intermediate"
