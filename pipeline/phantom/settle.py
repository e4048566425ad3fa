"""From lesions put in to lesions as they are seen: noise, masks, what they touch, and their place in the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from petground.pipeline.phantom.body import Body
from petground.pipeline.phantom.canvas import Array, Canvas
from petground.pipeline.phantom.disease import OWN_SHARE, SUV_HIGH, SUV_LOW, Placed, is_peak
from petground.pipeline.phantom.lesions import Vector, coverage
from petground.pipeline.phantom.physics import Scanner, add_noise

__all__ = ["Found", "mask_of", "paint_ct", "settle", "touched_organ"]

Found = tuple[Placed, NDArray[np.bool_], tuple[int, int, int]]
MOST_RAISES, RAISE = 3, 0.12  # how often a lesion that noise hides is made hotter, and by what share
TELLTALE = (  # organs that a reader would name as touched
    "heart_chambers", "myocardium", "liver", "spleen", "kidney_cortex", "kidney_pelvis", "bladder", "ureter",
    "stomach_wall", "duodenum", "small_bowel", "colon", "bowel_focus", "pancreas", "parotid", "submandibular",
    "thyroid", "tonsil", "prostate", "uterus", "brown_fat",
)  # fmt: skip


def mask_of(one: Placed, pet: Array, taken: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """True extent on the grid [K, J, I] and its hottest voxel k, j, i; earlier lesions keep their voxels."""
    mask = np.zeros(pet.shape, dtype=bool)
    part = pet[one.box]
    free = ~taken[one.box]
    candidates = (one.share > OWN_SHARE) & free
    if not candidates.any():
        return mask, (-1, -1, -1)
    peak = np.unravel_index(int(np.argmax(np.where(candidates, part, -1))), part.shape)
    local = (one.share >= 0.5) & free
    local[peak] = True
    mask[one.box] = local
    k, j, i = (int(p + b.start) for p, b in zip(peak, one.box, strict=True))
    return mask, (k, j, i)


def settle(placed: Sequence[Placed], image: Array, noise: Array, scanner: Scanner) -> tuple[Array, list[Found]]:
    """Adds noise; a lesion whose hottest voxel noise or a neighbour outdoes is made hotter, at last left out.

    Returns the PET as written [K, J, I] and, per lesion that is in it, the mask and the hottest voxel (k, j, i).
    """
    kept = list(placed)
    raised: dict[int, int] = {}
    pet = add_noise(image, noise, scanner)
    while True:
        found, weak = _check(kept, pet)
        if weak is None:
            return pet, found
        one = kept[weak]
        key = id(one.blob)
        raised[key] = raised.get(key, 0) + 1
        leave = raised[key] > MOST_RAISES or float(pet[one.box][one.share > 0].max(initial=0.0)) > 1.1 * SUV_HIGH
        change = -one.amount if leave else RAISE * one.amount
        image[one.box] += np.float32(change) * one.gain
        pet[one.box] = add_noise(image[one.box], noise[one.box], scanner)
        if leave:
            kept = [_released(other, weak) for index, other in enumerate(kept) if index != weak]
        else:
            kept[weak] = replace(one, amount=one.amount + change)


def _check(kept: Sequence[Placed], pet: Array) -> tuple[list[Found], int | None]:
    """Masks and hottest voxels, and the index of the first lesion that has no maximum of its own."""
    found: list[Found] = []
    taken = np.zeros(pet.shape, dtype=bool)
    for index, one in enumerate(kept):
        mask, peak = mask_of(one, pet, taken)
        if peak[0] < 0 or not is_peak(pet, peak) or pet[peak] < SUV_LOW - 0.15:
            return found, index
        taken |= mask
        found.append((one, mask, peak))
    return found, None


def _released(one: Placed, gone: int) -> Placed:
    """Indices of touched lesions after the one at `gone` was left out."""
    if one.touches is None or one.touches < gone:
        return one
    return replace(one, touches=None if one.touches == gone else one.touches - 1)


def touched_organ(one: Placed, mask: NDArray[np.bool_], canvas: Canvas) -> str | None:
    """The organ, other than the one it grows in, that borders on the lesion over a good part of its surface."""
    box = tuple(slice(max(0, b.start), b.stop) for b in one.box)
    local = mask[box]
    rim = binary_dilation(local, np.ones((3, 3, 3), dtype=bool)) & ~local
    at = canvas.organ[box]
    own = canvas.names.index(one.site.host) if one.site.host else -1
    seen = np.bincount(at[rim | local].ravel(), minlength=256)
    options = [(int(seen[canvas.names.index(n)]), n) for n in TELLTALE if canvas.names.index(n) != own]
    most, name = max(options)
    return name.replace("_", " ") if most >= 0.12 * int(rim.sum()) else None


def paint_ct(
    rng: np.random.Generator,
    canvas: Canvas,
    body: Body,
    lesions: Sequence[Placed],
    axes_mm: tuple[Vector, Vector, Vector],
) -> None:
    """Draws the lesions into the CT where breathing has left them: nodes as soft tissue, bone lytic or sclerotic."""
    for one in lesions:
        down = one.site.motion * canvas.moved * body.scale_z(-550.0)
        box, share, _ = coverage(one.blob, one.centre_mm - np.array([0.0, 0.0, down]), axes_mm, 4.0, fine=2)
        if share.size == 0:
            continue
        hu = one.site.hu + rng.normal(0, 4)
        if one.site.region == "musculoskeletal":
            hu = float(rng.choice([70.0, 420.0, 850.0])) + rng.normal(0, 20)
        part = canvas.value[box]
        part += share * (np.float32(hu) - part)
