"""Putting lesions into the images: how hot each is, that its hottest voxel is its own, what it touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from petground.pipeline.phantom.body import Body
from petground.pipeline.phantom.canvas import Array, Canvas
from petground.pipeline.phantom.lesions import Blob, Box, Vector, coverage, draw_blob, find_place
from petground.pipeline.phantom.physics import Scanner
from petground.pipeline.phantom.sites import SITES, SiteOfDisease, choose_sites

__all__ = ["SUV_HIGH", "SUV_LOW", "Placed", "is_peak", "place_lesions"]

COUNT = (0.05, 0.1, 0.15, 0.22, 0.24, 0.24)  # share of exams with 1, 2, ... 6 lesions
SUV_MEDIAN = {"FDG": 6.8, "DOTATATE": 12.0, "DCFPyL": 8.0, "fluciclovine": 5.5}
SUV_SPREAD, SUV_LOW, SUV_HIGH = 0.55, 2.7, 25.0
HIGHEST_CONTRAST = 45.0  # true uptake over background; beyond it a small lesion would need impossible activity
APART_MM = 9.0  # lesions that do not touch keep at least this distance
OWN_SHARE = 0.15  # of a voxel in the lesion, above which it counts as one of the lesion's
PAIRS, SINGLES, ALIKE = (0.3, 0.5, 0.2), (0.35, 0.4, 0.25), 0.06  # mirrored exams: 1..3 pairs, 0..2 more; SUV spread
TOUCHING, TWINS = 0.22, 0.06  # share of exams with a touching pair, with two lesions of one site
MARGIN_MM = 12.0
NEIGHBOURS: tuple[tuple[str, str], ...] = (
    ("cervical level ii node", "cervical level iii node"),
    ("cervical level iii node", "cervical level iv node"),
    ("cervical level iv node", "supraclavicular node"),
    ("lower paratracheal node", "hilar node"),
    ("upper lobe nodule", "hilar node"),
    ("lower lobe nodule", "hilar node"),
    ("retroperitoneal node", "common iliac node"),
    ("common iliac node", "external iliac node"),
    ("iliac bone lesion", "sacral lesion"),
    ("acetabular lesion", "iliac bone lesion"),
    ("hepatic segment vii lesion", "hepatic segment viii lesion"),
    ("hepatic segment v lesion", "hepatic segment vi lesion"),
    ("5th rib lesion", "6th rib lesion"),
)


@dataclass(frozen=True, eq=False)
class Placed:
    """A lesion in the PET before noise: place in world mm, box on the grid (k, j, i), share of each voxel, its blurred
    activity of height one and how much of that there is. touches: index of the lesion it was put against.
    """

    site: SiteOfDisease
    side: str | None
    blob: Blob
    centre_mm: Vector
    box: Box
    share: Array
    gain: Array
    amount: float
    touches: int | None = None


def place_lesions(
    rng: np.random.Generator,
    body: Body,
    canvas: Canvas,
    image: Array,
    scanner: Scanner,
    axes_mm: tuple[Vector, Vector, Vector],
    *,
    mirrored: bool = False,
) -> list[Placed]:
    """Draws the lesions of an exam and adds them to `image`, the blurred PET without noise [K, J, I].

    mirrored: lesions come in pairs, one at the same site of either side with about the same SUVmax, so that the side
    in a sentence, and nothing in the image, tells which is meant; some lesions more stand alone.
    """
    placed: list[Placed] = []

    def put(site: SiteOfDisease, side: str | None, against: bool = False, like: Placed | None = None) -> Placed | None:
        for _ in range(10):
            one = _try(rng, site, side, body, canvas, image, scanner, axes_mm, placed, against and bool(placed), like)
            if one is not None:
                image[one.box] += np.float32(one.amount) * one.gain
                placed.append(one)
                return one
        return None

    if mirrored:
        _put_pairs(rng, choose_sites(rng, 40, body.patient.tracer, body.patient.sex), put)
        return placed
    wanted = 1 + int(rng.choice(len(COUNT), p=COUNT))
    queue = choose_sites(rng, wanted + 8, body.patient.tracer, body.patient.sex)
    plan: list[tuple[SiteOfDisease, str | None, bool]] = [(site, side, False) for site, side in queue]
    if wanted > 1 and rng.random() < TWINS:
        plan.insert(1, (*queue[0], bool(rng.random() < 0.3)))
    elif wanted > 1 and rng.random() < TOUCHING:
        plan = _with_neighbour(rng, plan)
    for site, side, against in plan:
        if len(placed) == wanted:
            break
        put(site, side, against)
    return placed


def _put_pairs(
    rng: np.random.Generator,
    queue: Sequence[tuple[SiteOfDisease, str | None]],
    put: Callable[..., Placed | None],
) -> None:
    pairs = 1 + int(rng.choice(len(PAIRS), p=PAIRS))
    singles = int(rng.choice(len(SINGLES), p=SINGLES))
    taken: set[str] = set()
    for site, side in queue:
        if site.name in taken:
            continue
        both = side is not None and set(site.sides) == {"left", "right"}
        if both and pairs > 0:
            taken.add(site.name)
            first = put(site, side)
            if first is not None and put(site, "left" if side == "right" else "right", like=first) is not None:
                pairs -= 1
        elif singles > 0 and put(site, side) is not None:
            taken.add(site.name)
            singles -= 1
        if pairs == singles == 0:
            break


def _with_neighbour(
    rng: np.random.Generator, plan: list[tuple[SiteOfDisease, str | None, bool]]
) -> list[tuple[SiteOfDisease, str | None, bool]]:
    """Puts a site beside one that is planned anyway, so that the two can touch; the pair goes first."""
    for index, (site, side, _) in enumerate(plan[:4]):
        near = [b if a == site.name else a for a, b in NEIGHBOURS if site.name in (a, b)]
        options = [other for other in SITES if other.name in near and side in other.sides]
        if options:
            other = options[int(rng.integers(len(options)))]
            rest = [p for i, p in enumerate(plan) if i != index and (p[0].name, p[1]) != (other.name, side)]
            return [plan[index], (other, side, True), *rest]
    return plan


def _try(
    rng: np.random.Generator,
    site: SiteOfDisease,
    side: str | None,
    body: Body,
    canvas: Canvas,
    image: Array,
    scanner: Scanner,
    axes_mm: tuple[Vector, Vector, Vector],
    placed: Sequence[Placed],
    against: bool,
    like: Placed | None = None,
) -> Placed | None:
    """One lesion at a place drawn anew; None when it cannot lie there. like: its SUVmax and size are about the same."""
    low, high = site.diameter_mm if like is None else (0.85 * like.blob.diameter_mm, 1.15 * like.blob.diameter_mm)
    blob = draw_blob(rng, low * (high / low) ** rng.random())
    centre = find_place(rng, site, side, body, canvas, blob.diameter_mm)
    if centre is None:
        return None
    if against:
        centre = _beside(placed[-1], blob, centre)
    others = placed[:-1] if against else placed
    if any(_gap(blob, centre, other) < APART_MM for other in others):
        return None
    box, share, activity = coverage(blob, centre, axes_mm, MARGIN_MM)
    if (
        share.size == 0
        or share.max() <= OWN_SHARE
        or (canvas.organ[box][share >= 0.3 * share.max()] == 0).mean() > 0.05
    ):
        return None
    gain = gaussian_filter(activity, scanner.sigma_kji(site.motion), truncate=3.5, mode="constant")
    one = Placed(site, side, blob, centre, box, share, gain, 0.0, len(placed) - 1 if against else None)
    if like is None:
        amount = _amount(rng, one, image[box], SUV_MEDIAN[body.patient.tracer])
    else:
        height = float(image[like.box][like.share > OWN_SHARE].max())
        amount = _amount(rng, one, image[box], height, spread=ALIKE, exact=True)
    if amount is None:
        return None
    one = replace(one, amount=amount)
    if against and not _keeps_maximum(placed[-1], one, image):
        return None
    return one


def _amount(
    rng: np.random.Generator,
    one: Placed,
    background: Array,
    median: float,
    *,
    spread: float = SUV_SPREAD,
    exact: bool = False,
) -> float | None:
    """Activity that gives the wanted SUVmax over this background; None when the place is too hot for a lesion.

    exact: None, too, when the SUVmax drawn cannot be had here.
    """
    own = one.share > OWN_SHARE
    peak = np.unravel_index(int(np.argmax(np.where(own, one.gain, 0))), one.gain.shape)
    height = float(one.gain[peak])
    below = float(background[own].max())
    low, high = max(SUV_LOW, 1.45 * below + 0.8), min(SUV_HIGH, float(background[peak]) + HIGHEST_CONTRAST * height)
    if low >= high:
        return None
    target = float(median * np.exp(rng.normal(0.0, spread)))
    if not low <= target <= high:
        if exact:
            return None
        target = float(rng.uniform(low, min(high, 1.7 * low)))
    amount = (target - float(background[peak])) / height
    return amount if _is_own_maximum(background + np.float32(amount) * one.gain, own) else None


def _is_own_maximum(image: Array, own: NDArray[np.bool_]) -> bool:
    """True when the hottest of the lesion's voxels is hotter, by a margin, than what borders on the lesion."""
    rim = binary_dilation(own, np.ones((3, 3, 3), dtype=bool)) & ~own
    return float(image[own].max()) > 1.06 * float(image[rim].max(initial=0.0))


def _keeps_maximum(first: Placed, second: Placed, image: Array) -> bool:
    """True when both lesions of a touching pair still have a maximum of their own."""
    region = tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first.box, second.box, strict=True)
    )
    local = image[region].copy()
    inner = tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(second.box, region, strict=True))
    local[inner] += np.float32(second.amount) * second.gain
    masks = []
    for one in (first, second):
        mask = np.zeros(local.shape, dtype=bool)
        at = tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(one.box, region, strict=True))
        mask[at] = one.share > 0.5
        masks.append(mask)
    peaks = [np.unravel_index(int(np.argmax(np.where(mask, local, -1))), local.shape) for mask in masks]
    return all(is_peak(local, peak) for peak in peaks) and peaks[0] != peaks[1]  # type: ignore[arg-type]


def is_peak(image: Array, at: tuple[int, ...]) -> bool:
    """True when no neighbour of the voxel is as hot."""
    around = image[tuple(slice(max(0, p - 1), p + 2) for p in at)]
    return int((around >= image[at]).sum()) == 1


def _radial(blob: Blob, direction: Vector) -> float:
    """How far the lesion reaches from its centre along a unit vector [mm]."""
    return max(
        float(offset @ direction) + 1.0 / float(np.linalg.norm(frame @ direction)) for offset, frame, _ in blob.parts
    )


def _apart(centre: Vector, other: Placed) -> tuple[float, Vector]:
    """Distance [mm] from the other lesion's centre and the unit vector that way."""
    apart = centre - other.centre_mm
    distance = float(np.linalg.norm(apart))
    return distance, apart / distance if distance > 0 else np.array([1.0, 0.0, 0.0])  # drawn at the very same place


def _gap(blob: Blob, centre: Vector, other: Placed) -> float:
    distance, direction = _apart(centre, other)
    return distance - _radial(blob, -direction) - _radial(other.blob, direction)


def _beside(other: Placed, blob: Blob, centre: Vector) -> Vector:
    """The centre moved along its own direction until the lesion touches the other."""
    _, direction = _apart(centre, other)
    touching: Vector = other.centre_mm + direction * 0.97 * (_radial(other.blob, direction) + _radial(blob, -direction))
    return touching
