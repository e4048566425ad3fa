"""The anatomical structure that a report's site names, and how far a place is from it on an organ map."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from petground.labeling.finding import Laterality
from petground.labeling.organs import class_ids, sample
from petground.labeling.volume import Volume

__all__ = ["distance_mm", "structures"]

REACH_MM = 45.0  # further is as far as any other place
STEP_MM = 4.0
# Words of a site -> beginnings of class names. The first that fits decides: "iliac bone" before "iliac".
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"adrenal|suprarenal", ("adrenal_gland",)),
    (r"kidneys?|renal", ("kidney",)),
    (r"(?<!gall )bladder|vesical", ("urinary_bladder",)),
    (r"gall ?bladder", ("gallbladder",)),
    (r"liver|hepatic(?! (?:flexure|artery))|intrahepatic", ("liver",)),
    (r"spleen|splenic(?! (?:flexure|hilum|hilar|artery|vein))|intrasplenic", ("spleen",)),
    (r"pancrea\w*|uncinate", ("pancreas",)),
    (r"gastric|stomach", ("stomach",)),
    (r"(?:o?esophag(?:us|eal))", ("esophagus",)),
    (r"thyroid", ("thyroid_gland",)),
    (r"duoden\w*", ("duodenum",)),
    (r"colon|colonic|sigmoid|c(?:a)?ecum|c(?:a)?ecal|(?:hepatic|splenic) flexure", ("colon",)),
    (r"prostate|prostatic", ("prostate",)),
    (r"brain|cerebr\w*|cerebell\w*", ("brain",)),
    (r"calvari\w*|skull", ("skull",)),
    (r"stern(?:um|al)|manubri\w*|xiphoid", ("sternum",)),
    (r"scapul\w*|acromi\w*|glenoid|coracoid", ("scapula",)),
    (r"clavic(?:le|ular head)|clavicle", ("clavicula",)),
    (r"humer(?:us|al)", ("humerus",)),
    (r"femur|femoral (?:head|neck|shaft|diaphysis)|trochanter\w*", ("femur",)),
    (r"ili(?:um|ac (?:bone|wing|crest))|acetabul\w*|ischi\w*|pub(?:is|ic)|hemipelvis", ("hip",)),
    (r"sacr(?:um|al)", ("sacrum",)),
    (r"right upper lobe|rul", ("lung_upper_lobe_right",)),
    (r"middle lobe|rml", ("lung_middle_lobe_right",)),
    (r"right lower lobe|rll", ("lung_lower_lobe_right",)),
    (r"left upper lobe|lingula\w*|lul", ("lung_upper_lobe_left",)),
    (r"left lower lobe|lll", ("lung_lower_lobe_left",)),
    (r"upper lobe", ("lung_upper_lobe",)),
    (r"lower lobe", ("lung_lower_lobe",)),
    (r"lung|pulmonary nodule", ("lung_",)),
    (r"ribs?", ("rib_",)),
)
_VERTEBRA = re.compile(r"\b(c[1-7]|(?:t|th|d)(?:[1-9]|1[0-2])|l[1-5])\b(?! lymph| nod)", re.I)
_PATTERNS = tuple((re.compile(rf"\b(?:{words})\b", re.I), starts) for words, starts in _WORDS)
_NODE = re.compile(r"\b(?:nod(?:e|es|al)|lymph\w*|adenopathy|station|level|soft tissue|muscle|arter\w*|vein)\b", re.I)


@cache
def structures(site: str | None, side: Laterality | None = None) -> frozenset[int]:
    """Class ids that the site names, on the side where the class has one; empty when it names none.

    A node is not in the organ that it is called after ("splenic hilar node"), so sites of nodes name nothing.
    """
    if not site or _NODE.search(site):
        return frozenset()
    level = _VERTEBRA.search(site)
    if level:
        name = re.sub(r"^(TH|D)", "T", level[1].upper())
        starts: tuple[str, ...] = (f"vertebrae_{name}",)
    else:
        starts = next((names for pattern, names in _PATTERNS if pattern.search(site)), ())
    found = {number: name for number, name in class_ids().items() if any(_begins(name, start) for start in starts)}
    if side in ("left", "right"):
        other = {"left": "right", "right": "left"}[side]
        found = {number: name for number, name in found.items() if other not in name.split("_")}
    return frozenset(found)


def distance_mm(organs: Volume, xyz_mm: np.ndarray, wanted: frozenset[int]) -> float | None:
    """Distance from a place to the nearest of the structures, up to 45 mm; None when the map holds none of them."""
    if not wanted or not np.isin(_present(organs), list(wanted)).any():
        return None
    steps = np.arange(-REACH_MM, REACH_MM + 1, STEP_MM)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = np.concatenate([[[0.0, 0.0, 0.0]], offsets])
    held = np.isin(sample(organs, xyz_mm + offsets), list(wanted))
    return float(min(np.linalg.norm(offsets[held], axis=1).min(), REACH_MM)) if held.any() else REACH_MM


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(start if start.endswith("_") else f"{start}_")


def _present(organs: Volume) -> np.ndarray:
    return np.flatnonzero(np.bincount(np.asarray(organs.array, dtype=np.int64).ravel(), minlength=1))
