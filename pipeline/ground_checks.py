"""What an answer is held against: the value and the slice that its own sentence reports, and the other answers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from petground.labeling.numbering import site_for_series, slice_number
from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.ground_by import Asked, reported_k

__all__ = ["fingerprint", "not_as_reported"]

SUV_APART = (0.1, 0.05)  # g/ml (arXiv 2502.00528), or as a share: other software finds another maximum
SLICES_APART_MM = 10.0  # between the reported slice and the nearest of the mask: two thick slices


def fingerprint(answer: Any) -> bytes | None:
    """Of the mask; None of an empty one."""
    return hashlib.sha256(np.packbits(answer.mask).tobytes()).digest() if answer.mask.any() else None


def not_as_reported(one: Asked, answer: Any, pet: Volume, ct: Volume | None, site: Site) -> list[str]:
    """In words, where SUVmax or slices of what was found are not those of the sentence, or it says that nothing is
    there; empty where nothing was found."""
    if answer is None or answer.voxel_ijk is None:
        return []
    found = ["the sentence says that nothing is there"] if one.denied else []
    if one.suv is not None and abs(answer.suv_max - one.suv) > max(SUV_APART[0], SUV_APART[1] * one.suv):
        found.append(f"SUVmax {answer.suv_max:.2f}, reported {one.suv:g}")
    own = np.flatnonzero(answer.mask.any(axis=(0, 1)))
    reported = reported_k(one, pet, ct, site)
    if reported is not None:
        mm = float(np.abs(own[:, None] - np.array(reported)).min()) * float(pet.spacing_ijk_mm[2])
        if mm > SLICES_APART_MM:
            counted = site_for_series(site, one.series, pet, ct) or site  # as the sentence counts
            first, last = sorted(slice_number(int(k), pet, counted, ct) for k in (own[0], own[-1]))
            slices = f"slice {first}" if first == last else f"slices {first} to {last}"
            found.append(f"{slices}, reported {one.slice} ({mm:.0f} mm away)")
    return found
