"""Where a report points that names the series it counts in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from review_work import RAS, volumes

from petground.labeling.site import Site
from petground.labeling.volume import Volume
from petground.pipeline.review.load import _reported_k


@pytest.mark.parametrize(("series", "ks"), [(3, [21]), (4, [17, 18]), (9, [None]), (None, [21])])
def test_a_named_series_decides_where_the_report_points(series: int | None, ks: list[int | None]) -> None:
    """Slice 3 from the head: of 24 PET slices of 5 mm, or of 12 CT slices of 10 mm; a series not read: nowhere."""
    pet = replace(volumes()[0], series_number=3)
    grid = RAS.copy()
    grid[2, 2] = 10.0
    ct = Volume(np.zeros((*pet.shape[:2], 12), np.float32), grid, "HU", series_number=4)
    finding = {"slice": 3, "series": series}
    assert _reported_k(finding, None, pet, ct, Site(slice_by_series_number=True)) in ks
    assert _reported_k(finding, None, pet, ct, Site()) == 21, "a site that does not go by series numbers"
