"""Where lesions are put: named places with their likely sizes, and how often each tracer shows them.

Site names are key words as reports say them, without the side. Points lie on the right in standard space; the left is
their mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petground.pipeline.phantom.body import Body
from petground.pipeline.phantom.canvas import Point
from petground.pipeline.phantom.skeleton import rib_path, vertebra

__all__ = ["SITES", "SiteOfDisease", "choose_sites", "point_of"]

NODE_MM, LUNG_MM, BONE_MM = (6.0, 32.0), (6.0, 42.0), (9.0, 38.0)


@dataclass(frozen=True)
class SiteOfDisease:
    """One place where lesions occur.

    name: key words. region: neck | chest | abdomen | pelvis | musculoskeletal. sides: the sides it has; None is the
    midline or an unpaired organ. weight: relative frequency in FDG exams. diameter_mm: range. point: right-side place
    with `spread_mm` around it; None when it is drawn inside `host`. host: organ it is drawn in; part: lung lobe or
    liver segment of it. motion: share in the diaphragm's shift. hu: CT number.
    """

    name: str
    region: str
    weight: float
    diameter_mm: tuple[float, float] = NODE_MM
    sides: tuple[str | None, ...] = ("left", "right")
    point: Point | None = None
    spread_mm: float = 4.0
    host: str | None = None
    part: str | None = None
    motion: float = 0.0
    hu: float = 42.0
    women_only: bool = False


def _nodes() -> list[SiteOfDisease]:
    rows: list[tuple[str, str, float, Point, tuple[str | None, ...], float]] = [
        ("cervical level ii node", "neck", 6, (43, 8, -198), ("left", "right"), 0.0),
        ("cervical level iii node", "neck", 4, (40, 4, -234), ("left", "right"), 0.0),
        ("cervical level iv node", "neck", 2, (40, -2, -266), ("left", "right"), 0.0),
        ("supraclavicular node", "neck", 6, (64, 12, -303), ("left", "right"), 0.0),
        ("axillary node", "chest", 10, (152, 2, -384), ("left", "right"), 0.0),
        ("internal mammary node", "chest", 0.5, (25, 80, -405), ("left", "right"), 0.0),
        ("lower paratracheal node", "chest", 6, (22, -10, -376), ("left", "right"), 0.0),
        ("subcarinal node", "chest", 4, (2, -36, -408), (None,), 0.0),
        ("hilar node", "chest", 9, (52, -16, -422), ("left", "right"), 0.1),
        ("mesenteric node", "abdomen", 2, (0, 36, -700), (None,), 0.1),
        ("retroperitoneal node", "abdomen", 6, (31, -8, -655), ("left", "right"), 0.1),
        ("common iliac node", "pelvis", 1.5, (37, -10, -738), ("left", "right"), 0.0),
        ("external iliac node", "pelvis", 7, (68, 18, -812), ("left", "right"), 0.0),
        ("inguinal node", "pelvis", 9, (88, 72, -888), ("left", "right"), 0.0),
    ]
    return [
        SiteOfDisease(name, region, weight, NODE_MM, sides, point, 4.0 if sides[0] else 5.0, motion=motion)
        for name, region, weight, point, sides, motion in rows
    ]


def _bones() -> list[SiteOfDisease]:
    rows: list[tuple[str, float, Point, float, tuple[float, float], tuple[str | None, ...]]] = [
        ("iliac bone lesion", 8, (88, -18, -742), 14.0, (10, 45), ("left", "right")),
        ("sacral lesion", 2, (27, -62, -752), 5.0, (10, 36), ("left", "right")),
        ("acetabular lesion", 1.5, (86, -8, -812), 4.0, (9, 30), ("left", "right")),
        ("ischial lesion", 1, (60, -42, -888), 4.0, (9, 28), ("left", "right")),
        ("proximal femoral lesion", 4, (126, -13, -872), 6.0, (10, 40), ("left", "right")),
        ("humeral head lesion", 2.5, (164, -24, -350), 5.0, (9, 30), ("left", "right")),
        ("scapular lesion", 3, (98, -86, -398), 12.0, (9, 32), ("left", "right")),
        ("sternal lesion", 1.5, (0, 92, -405), 8.0, (9, 30), (None,)),
    ]
    sites = [
        SiteOfDisease(name, "musculoskeletal", weight, size, sides, point, spread, hu=300.0)
        for name, weight, point, spread, size, sides in rows
    ]
    ordinals = {3: "3rd", 4: "4th", 5: "5th", 6: "6th", 7: "7th", 8: "8th", 9: "9th"}
    for number, word in ordinals.items():
        sites.append(
            SiteOfDisease(f"{word} rib lesion", "musculoskeletal", 0.9, (8, 24), part=f"rib {number}", hu=300.0)
        )
    for level in ("c5", "c7", "t3", "t5", "t7", "t9", "t10", "t11", "t12", "l1", "l2", "l3", "l4", "l5"):
        name = f"{level} vertebral body lesion"
        sites.append(
            SiteOfDisease(name, "musculoskeletal", 0.65, (9, 32), (None,), vertebra(level)[0], part=level, hu=300.0)
        )
    return sites


def _organs() -> list[SiteOfDisease]:
    right, left = ("right",), ("left",)
    sites = [
        SiteOfDisease("upper lobe nodule", "chest", 5, LUNG_MM, right, host="lung", part="RUL", hu=32),
        SiteOfDisease("middle lobe nodule", "chest", 3, LUNG_MM, right, host="lung", part="RML", motion=0.3, hu=32),
        SiteOfDisease("lower lobe nodule", "chest", 5, LUNG_MM, right, host="lung", part="RLL", motion=0.6, hu=32),
        SiteOfDisease("upper lobe nodule", "chest", 5, LUNG_MM, left, host="lung", part="LUL", motion=0.1, hu=32),
        SiteOfDisease("lower lobe nodule", "chest", 5, LUNG_MM, left, host="lung", part="LLL", motion=0.6, hu=32),
        SiteOfDisease("breast mass", "chest", 5, (10, 40), point=(82, 114, -434), spread_mm=8, hu=45, women_only=True),
        SiteOfDisease("thyroid nodule", "neck", 0.7, (8, 26), point=(21, 15, -268), spread_mm=2, hu=60),
        SiteOfDisease("parotid nodule", "neck", 0.5, (8, 24), point=(56, 0, -170), spread_mm=3, hu=40),
        SiteOfDisease("adrenal nodule", "abdomen", 8, (10, 40), point=(38, -35, -570), spread_mm=3, motion=0.5, hu=28),
        SiteOfDisease("splenic lesion", "abdomen", 2, (10, 36), (None,), host="spleen", motion=0.9, hu=36),
        SiteOfDisease("pancreatic mass", "abdomen", 1.5, (12, 40), (None,), (4, 24, -607), 10, motion=0.5, hu=35),
        SiteOfDisease("peritoneal nodule", "abdomen", 1, (7, 30), point=(106, 30, -715), spread_mm=7),
    ]
    for segment in ("ii", "iii", "iva", "ivb", "v", "vi", "vii", "viii"):
        name = f"hepatic segment {segment} lesion"
        weight = 0.7 if segment in ("iva", "ivb") else 1.6
        sites.append(
            SiteOfDisease(name, "abdomen", weight, (10, 50), (None,), host="liver", part=segment, motion=1.0, hu=40)
        )
    return sites


SITES: tuple[SiteOfDisease, ...] = (*_nodes(), *_organs(), *_bones())

# How much more or less often than with FDG: prostate cancer goes to pelvic and retroperitoneal nodes and bone,
# neuroendocrine tumours to liver, mesentery and bone; organs hotter than any lesion are left out.
SHIFT: dict[str, dict[str, float]] = {
    "FDG": {},
    "DOTATATE": {
        "hepatic": 2.5, "mesenteric": 5.0, "retroperitoneal": 1.5, "pancreatic": 3.0, "splenic": 0.0, "adrenal": 0.0,
        "breast": 0.1, "parotid": 0.0, "thyroid": 0.2, "cervical": 0.4, "inguinal": 0.4, "nodule": 0.6,
    },
    "DCFPyL": {
        "common iliac": 4.0, "external iliac": 2.5, "retroperitoneal": 2.5, "inguinal": 1.2, "bone": 1.5,
        "lesion": 1.6, "hepatic": 0.0, "splenic": 0.0, "adrenal": 0.2, "parotid": 0.0, "thyroid": 0.2, "cervical": 0.3,
        "pancreatic": 0.0, "nodule": 0.4,
    },
    "fluciclovine": {
        "common iliac": 4.0, "external iliac": 2.5, "retroperitoneal": 2.5, "inguinal": 1.2, "bone": 1.5,
        "lesion": 1.6, "hepatic": 0.0, "splenic": 0.2, "adrenal": 0.2, "pancreatic": 0.0, "parotid": 0.2,
        "cervical": 0.3, "nodule": 0.4,
    },
}  # fmt: skip


def choose_sites(rng: np.random.Generator, count: int, tracer: str, sex: str) -> list[tuple[SiteOfDisease, str | None]]:
    """Draws `count` different sites with sides; the caller may find that some cannot be placed and draw on."""
    options = [(site, side) for site in SITES for side in site.sides if sex == "F" or not site.women_only]
    weights = np.array([site.weight / len(site.sides) for site, _ in options])
    for word, factor in SHIFT[tracer].items():
        weights *= [factor if word in site.name else 1.0 for site, _ in options]
    chosen = rng.choice(
        len(options), size=min(count, int((weights > 0).sum())), replace=False, p=weights / weights.sum()
    )
    return [options[index] for index in chosen]


def point_of(rng: np.random.Generator, site: SiteOfDisease, side: str | None, body: Body) -> Point:
    """A standard-space place of a site that is not drawn inside a host organ."""
    sign = -1 if side == "left" else 1
    if site.part and site.part.startswith("rib"):
        path = np.asarray(rib_path(int(site.part.split()[1]), sign, body))
        x, y, z = path[int(rng.integers(2, len(path) - 2))]
        return float(x), float(y), float(z)
    assert site.point is not None
    if site.part:  # a vertebra: within its body
        _, half = vertebra(site.part)
        x, y, z = np.asarray(site.point) + rng.uniform(-0.45, 0.45, 3) * half
        return float(x), float(y), float(z)
    x, y, z = np.asarray(site.point) + np.clip(
        rng.normal(0.0, site.spread_mm, 3), -2 * site.spread_mm, 2 * site.spread_mm
    )
    if side is None:
        return float(x), float(y), float(z)
    return float(sign * max(x, 12.0)), float(y), float(z)


def liver_segment(x: float, y: float, z: float) -> str:
    """Couinaud segment at a standard point: by the three hepatic vein planes and the level of the portal vein."""
    above = z > -570.0
    middle = 18.0 + 0.45 * (y + 10.0)  # plane through inferior vena cava and gallbladder
    if x < -4.0 - 0.1 * y:
        return "ii" if z > -545.0 else "iii"
    if x < middle:
        return "iva" if z > -548.0 else "ivb"
    if y > 2.0 - 0.15 * (x - 60.0):
        return "viii" if above else "v"
    return "vii" if above else "vi"
