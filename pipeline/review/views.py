"""The pictures of one finding, as what the page's template draws: layers, outline, crosshair, marks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petground.pipeline.review.load import Item
from petground.pipeline.review.panels import CT_WINDOW_HU, View, Viewer

__all__ = ["Album", "axial_row", "detail_row", "projections"]

LETTERS: dict[View, list[tuple[str, str]]] = {
    "axial": [("left", "R"), ("right", "L"), ("up", "A"), ("down", "P")],
    "coronal": [("left", "R"), ("right", "L"), ("up", "H"), ("down", "F")],
    "sagittal": [("left", "A"), ("right", "P"), ("up", "H"), ("down", "F")],
}
CROSS_GAP_MM = 16.0
DETAIL_MM = 110.0
BAR_MM = 20.0


@dataclass
class Album:
    """The images of one page, each stored once under an id; pictures refer to them."""

    viewer: Viewer
    ct_pixel_mm: float
    ct_quality: int
    images: dict[str, dict[str, Any]] = field(default_factory=dict)

    def pet(self, k: int) -> str:
        """Id of the PET slice."""
        return self._keep(f"pet-{k}", "axial", lambda: self.viewer.pet_slice(k)) or ""

    def ct(self, k: int) -> str | None:
        """Id of the CT at that PET slice, None without CT."""
        return self._keep(f"ct-{k}", "axial", lambda: self.viewer.ct_slice(
            k, pixel_mm=self.ct_pixel_mm, quality=self.ct_quality))  # fmt: skip

    def mip(self, view: Literal["coronal", "sagittal"]) -> str:
        """Id of the projection."""
        return self._keep(f"mip-{view}", view, lambda: self.viewer.pet_mip(view)) or ""

    def _keep(self, name: str, view: View, make: Any) -> str | None:
        if name not in self.images:
            uri = make()
            if uri is None:
                return None
            frame = self.viewer.frame(view)
            self.images[name] = {"uri": uri, "width_mm": frame.width_mm, "height_mm": frame.height_mm}
        return name


def projections(album: Album, item: Item) -> list[dict[str, Any]]:
    """Coronal and sagittal projections with the label's outline and the candidates' rings."""
    pictures = []
    views: tuple[Literal["coronal", "sagittal"], ...] = ("coronal", "sagittal")
    for view in views:
        rings = []
        for row in item.candidates:
            if item.label is not None and row["rank"] == item.candidates[0]["rank"]:
                continue
            x, y = album.viewer.point_mm(view, (int(row["voxel_i"]), int(row["voxel_j"]), int(row["voxel_k"])))
            rings.append({"x": x, "y": y, "name": str(int(row["rank"]) + 1)})
        outlined = item.mask is not None
        pictures.append(
            _picture(
                album,
                view,
                layers=[(album.mip(view), "grey")],
                label=f"{view.capitalize()} maximum-intensity projection of the PET"
                + (", label outlined in red" if outlined else "")
                + (f", {len(rings)} candidates ringed" if rings else ""),
                caption=f"{view.capitalize()} projection",
                kind="mip",
                outline=album.viewer.outline(_inside(item), view) if outlined else "",
                cross=_cross(album, view, item.voxel_ijk, gap_mm=34.0) if outlined and item.voxel_ijk else "",
                rings=rings,
            )
        )
    return pictures


def axial_row(album: Album, item: Item, k: int, voxel_ijk: tuple[int, int, int] | None, where: str) -> list[Any]:
    """PET, CT and fused pictures of one stored slice; a crosshair at the voxel when there is one."""
    cross = _cross(album, "axial", voxel_ijk) if voxel_ijk else ""
    return _axial(album, item, k, where, cross=cross)


def detail_row(album: Album, item: Item, voxel_ijk: tuple[int, int, int], where: str) -> list[Any]:
    """The same three pictures, enlarged around the hottest voxel, with a bar of 2 cm."""
    frame = album.viewer.frame("axial")
    width = DETAIL_MM
    if item.mask is not None:
        at = np.argwhere(_inside(item))
        extent = (np.ptp(at, axis=0) + 1) * np.array(item.mask.spacing_ijk_mm)
        width = max(DETAIL_MM, 2.0 * float(extent.max()))
    width = min(width, frame.width_mm)
    height = width * frame.height_mm / frame.width_mm
    x, y = album.viewer.point_mm("axial", voxel_ijk)
    left = min(max(0.0, x - width / 2), frame.width_mm - width)
    top = min(max(0.0, y - height / 2), frame.height_mm - height)
    bar_y, bar_x = top + height * 0.93, left + width * 0.06
    return _axial(
        album, item, voxel_ijk[2], where, box=f"{left:.1f} {top:.1f} {width:.1f} {height:.1f}",
        bar=f"M{bar_x:.1f} {bar_y:.1f}h{BAR_MM}", note=" · bar 2 cm",
    )  # fmt: skip


def _axial(album: Album, item: Item, k: int, where: str, *, note: str = "", **extra: Any) -> list[dict[str, Any]]:
    outline = album.viewer.outline(_inside(item), "axial", k) if item.mask is not None else ""
    told = ", label outlined" if outline else ""
    pet, ct = album.pet(k), album.ct(k)
    window = f"{CT_WINDOW_HU[0]:.0f} to {CT_WINDOW_HU[1]:.0f} HU"
    shared = {"outline": outline, **extra}
    pictures = [
        _picture(album, "axial", layers=[(pet, "grey")], label=f"Axial PET, {where}{told}", caption=f"PET{note}",
                 kind="ax", **shared)
    ]  # fmt: skip
    if ct is not None:
        pictures += [
            _picture(album, "axial", layers=[(ct, "")], label=f"Axial CT, {where}{told}", caption=f"CT · {window}",
                     kind="ax over-ct", suv=False, **shared),
            _picture(album, "axial", layers=[(ct, ""), (pet, "hot")], label=f"Axial PET over CT, {where}{told}",
                     caption="Fused", kind="ax over-ct", **shared),
        ]  # fmt: skip
    return pictures


def _picture(album: Album, view: View, **parts: Any) -> dict[str, Any]:
    return {"frame": album.viewer.frame(view), "letters": LETTERS[view], **parts}


def _inside(item: Item) -> NDArray[np.bool_]:
    assert item.mask is not None
    return np.asarray(item.mask.array > 0)


def _cross(album: Album, view: View, voxel_ijk: tuple[int, int, int], gap_mm: float = CROSS_GAP_MM) -> str:
    """Hair lines [mm] to the voxel from the four edges, ending short of it so that it stays visible."""
    frame = album.viewer.frame(view)
    x, y = album.viewer.point_mm(view, voxel_ijk)
    lines = []
    if y > gap_mm:
        lines.append(f"M{x:.1f} 0V{y - gap_mm:.1f}")
    if y < frame.height_mm - gap_mm:
        lines.append(f"M{x:.1f} {y + gap_mm:.1f}V{frame.height_mm:.1f}")
    if x > gap_mm:
        lines.append(f"M0 {y:.1f}H{x - gap_mm:.1f}")
    if x < frame.width_mm - gap_mm:
        lines.append(f"M{x + gap_mm:.1f} {y:.1f}H{frame.width_mm:.1f}")
    return "".join(lines)
