"""Whether a report may tell of a place: what decides that a sentence is about nothing there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["Place", "may_be_here", "place_stems"]

Place = tuple[str, str]  # site words and side; "" where the text does not say

_STEM = 5  # letters that "axilla" and "axillary", "vertebra" and "vertebral" have in common
_WORD = re.compile(r"[a-z][a-z0-9]+")
_VERTEBRA = re.compile(r"\b([ctls]) (\d)")
# words that name no place of their own
_KINDS = (
    "abnormality activity avid body bone bony deposit disease finding focal foci focus hypermetabolic lesion lesions "
    "lymph mass masses met metastases metastasis metastatic mets nodal node nodes nodular nodule nodules organ osseous "
    "region site soft tissue tumor tumors tumour uptake"
)
_PARTS = (
    "anterior area aspect bilateral central common distal external head inferior inner internal lateral left level "
    "lower medial mid middle outer posterior proximal right segment station superior upper zone ii iii iv vi vii viii"
)
_GENERIC = frozenset(f"{_KINDS} {_PARTS} and in of the".split())


@lru_cache(maxsize=65536)
def place_stems(site: str) -> frozenset[str]:
    """First letters of the words that tell the place: "right axillary lymph node" -> {"axill"}; maybe empty."""
    words = _WORD.findall(_VERTEBRA.sub(r"\1\2", site.lower()))
    return frozenset(word[:_STEM] for word in words if word not in _GENERIC)


def may_be_here(place: Place, here: Iterable[Place]) -> bool:
    """True unless `place` is surely none of `here`: they share a word of the site and their sides do not differ.

    An unknown side, or both sides, agrees with any. A site of general words only ("lymph node") could be anywhere:
    it may be here. Places of `here` without a word of their own cannot be compared and do not count.
    """
    stems, side = place_stems(place[0]), place[1]
    if not stems:
        return True
    return any(
        stems & place_stems(site) and (side == other or not {side, other} <= {"left", "right"}) for site, other in here
    )
