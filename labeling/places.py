"""Whether a report may tell of a place: what decides that a sentence is about nothing there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from petground.labeling.regions import region_of

__all__ = ["Place", "is_part_of_body", "may_be_here", "may_lie_in", "place_stems"]

Place = tuple[str, str]  # site words and side; "" where the text does not say

_STEM = 5  # letters that "axilla" and "axillary", "vertebra" and "vertebral" have in common
_WORD = re.compile(r"[a-z][a-z0-9]+")
_VERTEBRA = re.compile(r"\b([cdlst]|th) ?(?=\d{1,2}\b)")
_INTRA = re.compile(r"\bintra[- ]?")  # "intrathoracic" is thoracic
_LEVEL = re.compile(r"[clst]\d{1,2}")
# words that name no place of their own
_KINDS = (
    "abnormality activity avid body deposit disease finding focal foci focus gland hypermetabolic lesion lesions "
    "lymph mass masses met metastases metastasis metastatic mets muscle nodal node nodes nodular nodule nodules organ "
    "region site soft tissue tumor tumors tumour uptake"
)
_PARTS = (
    "anterior area aspect bilateral central chain common distal external fossa head inferior inner internal lateral "
    "left level lower medial mid middle outer posterior proximal right segment space station superior upper vessels "
    "zone ii iii iv vi vii viii"
)
_GENERIC = frozenset(f"{_KINDS} {_PARTS} and in of the".split())
# Each line: one place in other words, Latin and English; together where in doubt, for then nothing is called absent.
_SAME = """
hila hilar hilum hilus
lung lobe pulmonary lingula rul rml rll lul lll
subcarinal carina
mammary breast
subpectoral pectoral
esophagus oesophagus
axilla infraclavicular
neck cervical jugular
thyroid isthmus
tonsil palatine
stomach gastric pylorus
liver hepatic
spleen splenic
pancreas peripancreatic uncinate
adrenal suprarenal
kidney renal nephric
aortic paraaortic periaortic retroperitoneal aortocaval
peritoneal paracolic gutter omental mesenteric
bowel colon colic sigmoid cecum caecum ileum ileal jejunum duodenum
rectum rectal rectosigmoid mesorectal perirectal pararectal
anus anal
bladder vesical
uterus uterine endometrial myometrial
ovary ovarian adnexal
testis testicular scrotal
pelvis hemipelvis
groin inguinal
iliac ilium
sacrum sacral sacroiliac
femur femoral trochanter
humerus humeral
rib costal costochondral
sternum sternal manubrium xiphoid
skull calvaria calvarium cranial
brain cerebral cerebellar cranial
tibia tibial shin
skin cutaneous subcutaneous dermal
"""
# a site of these alone names a part of the body, and may be any place in it
_WIDE = (
    "abdomen abdominal appendicular axial bone bony chest extremity hemithorax limb limbs marrow mediastinum "
    "mediastinal neck osseous pelvis pelvic retroperitoneal skeletal skeleton spine thorax thoracic torso trunk "
    "vertebra vertebral wall"
)
_NODAL = re.compile(r"\b(?:lymph|nod(?:e|es|al)\b|adenopath)")
_TORSO, _LIMB = re.compile(r"\b(?:torso|trunk)"), re.compile(r"\b(?:extremit|limb)")
_IN_PART = frozenset(("bone", "limbs and skin"))  # regions that lie in every part of the body
_ANYWHERE = _IN_PART | {"not told"}


def _stem(word: str) -> str:
    return word.rstrip("s")[:_STEM] if len(word) <= _STEM else word[:_STEM]


def _alike() -> dict[str, frozenset[str]]:
    """Names of the groups of a stem."""
    groups: dict[str, set[str]] = {}
    for line in _SAME.split("\n"):
        words = line.split()
        for word in words:
            groups.setdefault(_stem(word), set()).add(words[0])
    return {stem: frozenset(names) for stem, names in groups.items()}


_ALIKE = _alike()
_SPINE = frozenset(_stem(word) for word in ("spine", "spinal", "vertebra", "sacrum"))
_WIDE_STEMS = frozenset(_stem(word) for word in _WIDE.split())
_DENIED_STEMS = _WIDE_STEMS | {_stem("cervical")}  # a node told of there has a level; denied, it is that of any


@lru_cache(maxsize=65536)
def place_stems(site: str) -> frozenset[str]:
    """First letters of the words that tell the place: "right axillary lymph node" -> {"axill"}; maybe empty."""
    words = _WORD.findall(_VERTEBRA.sub(_level, _INTRA.sub("", site.lower())))
    return frozenset(_stem(word) for word in words if word not in _GENERIC)


def may_be_here(place: Place, here: Iterable[Place]) -> bool:
    """True unless `place` is surely none of `here`: each has its own words, or the sides differ.

    An unknown side, or both sides, agrees with any. Words for one place count as one ("groin", "inguinal"); a part of
    the body ("pelvic node") may be any place in it; and a site of general words only ("lymph node") may be anywhere.
    """
    return any(_sides_agree(place[1], side) and _may_be_one(place[0].lower(), site.lower()) for site, side in here)


def may_lie_in(place: Place, here: Iterable[Place]) -> bool:
    """As `may_be_here`, of a place all of which is denied: "no uptake in the chest" denies ribs and skin there, too.

    So of a part of the body only sites of another part are surely elsewhere.
    """
    here = list(here)
    if may_be_here(place, here):
        return True
    if not is_part_of_body(place[0]):
        return False
    parts = _regions(place[0].lower()) | _ANYWHERE
    return any(_sides_agree(place[1], side) and not parts.isdisjoint(_regions(site.lower())) for site, side in here)


def is_part_of_body(site: str) -> bool:
    """Whether a site that is denied is a whole part of the body, or names no place at all."""
    return place_stems(site) <= _DENIED_STEMS


def _level(found: re.Match[str]) -> str:
    return {"th": "t", "d": "t"}.get(found[1], found[1])


def _sides_agree(one: str, other: str) -> bool:
    return one == other or not {one, other} <= {"left", "right"}


@lru_cache(maxsize=65536)
def _may_be_one(one: str, other: str) -> bool:
    mine, theirs = place_stems(one), place_stems(other)
    if not mine or not theirs or mine & theirs or _names(mine) & _names(theirs):
        return True
    if _wide(mine) or _wide(theirs):
        return not _regions(one).isdisjoint(_regions(other))
    levels, theirs_levels = (any(_LEVEL.fullmatch(stem) for stem in stems) for stems in (mine, theirs))
    return levels != theirs_levels and bool(_SPINE & (theirs if levels else mine))  # "L3" and "lumbar spine"


@lru_cache(maxsize=65536)
def _regions(site: str) -> frozenset[str]:
    """Regions in which the place may lie: "chest wall" may be a rib, "iliac lesion" the bone; "pelvic node" may not."""
    site = _INTRA.sub("", site)
    found = {region_of(site)}
    if _TORSO.search(site):
        found |= {"chest", "abdomen", "pelvis"}
    vague = _wide(place_stems(site)) or "iliac" in site
    if _LIMB.search(site) or (vague and found != {"bone"} and _NODAL.search(site) is None):
        found |= _IN_PART
    return frozenset(found)


def _wide(stems: frozenset[str]) -> bool:
    return stems <= _WIDE_STEMS


def _names(stems: frozenset[str]) -> frozenset[str]:
    return frozenset(name for stem in stems for name in _ALIKE.get(stem, ()))
