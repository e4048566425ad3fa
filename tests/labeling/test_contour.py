"""Outlines against truth: sizes, neighbours, organs, edges."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from petground.labeling.contour import outline
from petground.labeling.threshold import edge_fraction
from petground.labeling.volume import Volume

Scan = Callable[..., tuple[Volume, list[NDArray]]]


def hottest(pet: Volume, mask: NDArray) -> tuple[int, int, int]:
    i, j, k = np.unravel_index(int(np.where(mask, pet.array, -1).argmax()), pet.shape)
    return int(i), int(j), int(k)


def outlined(pet: Volume, mask: NDArray, **options: object) -> tuple[NDArray, object]:
    shape = outline(pet, hottest(pet, mask), **options)  # type: ignore[arg-type]
    assert shape is not None
    whole = np.zeros(pet.shape, bool)
    whole[shape.box.slices] = shape.mask
    return whole, shape


def dice(a: NDArray, b: NDArray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("diameter", "least"), [(7, 0.6), (10, 0.75), (15, 0.85), (25, 0.9), (45, 0.93), (60, 0.93)])
def test_round_lesions_of_every_size(scan: Scan, diameter: float, least: float) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), diameter, 9.0)])
    mask, shape = outlined(pet, truth)
    assert dice(mask, truth) >= least
    assert shape.method == ("small" if diameter <= 10 else "even")  # type: ignore[attr-defined]


def test_a_faint_lesion(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 20, 2.8)])
    assert dice(outlined(pet, truth)[0], truth) > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_large_uneven_lesion_is_outlined_whole(scan: Scan, seed: int) -> None:
    """Two fifths of the maximum would take its hottest part for the tumour."""
    pet, (truth,) = scan([((20.0, 0.0, -910.0), 60, 8.0)], uneven=0.5, seed=seed)
    mask, shape = outlined(pet, truth)
    assert shape.method == "uneven"  # type: ignore[attr-defined]
    assert dice(mask, truth) > 0.85
    assert dice(mask, truth) > dice(pet.array >= 0.41 * pet.array[truth].max(), truth)


def test_touching_lesions_are_split_when_the_other_is_known(scan: Scan) -> None:
    pet, (left, right) = scan([((-14.0, 0.0, -910.0), 22, 8.0), ((10.0, 3.0, -910.0), 26, 9.5)])
    for own, other in ((left, right), (right, left)):
        mask, _ = outlined(pet, own, others=[hottest(pet, other)])
        assert dice(mask, own) > 0.85
        assert not mask[hottest(pet, other)]


def test_an_unknown_hotter_neighbour_is_left_out(scan: Scan) -> None:
    pet, (own, hot) = scan([((-14.0, 0.0, -910.0), 22, 8.0), ((12.0, 3.0, -910.0), 30, 20.0)])
    mask, shape = outlined(pet, own)
    assert dice(mask, own) > 0.75
    assert not (mask & hot).sum() > 0.05 * hot.sum()
    assert "touches_hotter" in shape.notes  # type: ignore[attr-defined]


def test_a_lesion_in_an_organ(scan: Scan) -> None:
    pet, (_, own) = scan([((20.0, 0.0, -910.0), 90, 5.0), ((12.0, 8.0, -915.0), 18, 10.0)])
    assert dice(outlined(pet, own)[0], own) > 0.8


def test_a_lesion_on_a_large_organ_does_not_flow_into_it(scan: Scan) -> None:
    pet, (organ, own) = scan([((40.0, 0.0, -910.0), 80, 5.5), ((-8.0, 0.0, -910.0), 18, 10.0)])
    mask, shape = outlined(pet, own)
    assert dice(mask, own) > 0.7
    assert (mask & organ).sum() < 0.02 * organ.sum()
    assert "on_organ" in shape.notes  # type: ignore[attr-defined]


def test_organs_given_are_kept_out_unless_named(scan: Scan) -> None:
    """The label map has its own, coarser and flipped grid."""
    pet, (own, bladder) = scan([((-10.0, 0.0, -910.0), 24, 10.0), ((15.0, 0.0, -910.0), 26, 9.0)])
    affine = np.diag([-5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = (130.0, -70.0, -1000.0)
    ids = np.zeros((52, 36, 36), np.uint8)
    organs = Volume(ids, affine, "label")
    centres = organs.to_world_mm(np.stack(np.meshgrid(*map(np.arange, ids.shape), indexing="ij"), -1))
    ids[np.linalg.norm(centres - (15.0, 0.0, -910.0), axis=-1) < 13] = 21
    kept_out, _ = outlined(pet, own, organs=organs)
    assert (kept_out & bladder).sum() < 0.12 * bladder.sum()
    assert dice(kept_out, own) > 0.8
    free, _ = outlined(pet, bladder, organs=organs, site="urinary bladder wall")
    assert (free & bladder).sum() > 0.7 * bladder.sum()


def test_at_the_edge_of_the_image(scan: Scan) -> None:
    pet, (truth,) = scan([((6.0, 0.0, -1000.0), 30, 9.0)])
    mask, shape = outlined(pet, truth)
    assert dice(mask, truth) > 0.8
    assert "at_image_edge" in shape.notes  # type: ignore[attr-defined]


def test_mask_is_connected_filled_and_holds_its_seed(scan: Scan) -> None:
    cc3d = pytest.importorskip("cc3d")
    pet, (truth, _) = scan([((31.0, -11.0, -905.0), 40, 9.0), ((31.0, -11.0, -905.0), 14, 5.0)])  # a dead centre
    mask, _ = outlined(pet, truth)
    assert mask[hottest(pet, truth)]
    assert mask[tuple(np.rint(pet.to_index([31.0, -11.0, -905.0])).astype(int))]
    assert cc3d.connected_components(mask, connectivity=6).max() == 1


def test_edge_of_a_small_blurred_lesion_lies_high() -> None:
    fractions = [edge_fraction(volume, 3.6) for volume in (0.25, 0.6, 1.2, 4.0, 30.0)]
    assert fractions[0] > 0.58
    assert fractions[2] < 0.5
    assert all(0.37 < f < 0.5 for f in fractions[3:])


def test_quick(scan: Scan) -> None:
    pet, (truth,) = scan([((31.0, -11.0, -905.0), 25, 9.0)])
    outlined(pet, truth)
    start = time.process_time()
    outlined(pet, truth)
    assert time.process_time() - start < 0.5
