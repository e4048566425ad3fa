"""Bones with names: vertebrae C1 to L5, sacrum, twelve pairs of ribs, shoulder girdle, pelvis, femora, skull."""

from __future__ import annotations

import numpy as np

from petground.pipeline.phantom.body import CAVITY, Body, contour
from petground.pipeline.phantom.canvas import Point, Shape, capsule, ellipsoid, mirrored, slab, tube

__all__ = ["VERTEBRAE", "rib_path", "skeleton", "vertebra"]

VERTEBRAE = tuple([f"c{n}" for n in range(1, 8)] + [f"t{n}" for n in range(1, 13)] + [f"l{n}" for n in range(1, 6)])

# Level, z and y of the vertebral body's centre, its half width, half depth, half height [mm].
SPINE = {
    "c1": (-152, -8, 9, 7, 6), "c4": (-208, -4, 9, 7.5, 6.5), "c7": (-273, -24, 11, 8.5, 7.5),
    "t1": (-292, -33, 13, 9.5, 8.5), "t4": (-359, -57, 14, 12, 10), "t7": (-429, -64, 15, 14, 11.5),
    "t10": (-503, -56, 18, 15.5, 12.5), "l1": (-576, -44, 22, 16.5, 14), "l3": (-642, -30, 24, 17.5, 14.5),
    "l5": (-710, -36, 26, 17.5, 14),
}  # fmt: skip
RIB_DROP_MM = (34, 54, 74, 92, 106, 116, 121, 121, 115, 104, 66, 40)  # from the spine to the front end
RIB_END_DEG = (150, 152, 152, 152, 152, 150, 148, 142, 136, 128, 92, 62)  # 0 spine, 180 sternum
SIX_POINTS = np.linspace(0.0, 1.0, 11)


def vertebra(name: str) -> tuple[Point, Point]:
    """Centre and half sizes (x, y, z) of a vertebral body in standard space."""
    at = [VERTEBRAE.index(level) for level in SPINE]
    z, y, half_x, half_y, half_z = (
        float(np.interp(VERTEBRAE.index(name), at, column)) for column in zip(*SPINE.values(), strict=True)
    )
    return (0.0, y, z), (half_x, half_y, half_z)


def rib_path(number: int, side: int, body: Body) -> list[Point]:
    """Points of the bony rib 1-12 from the spine forward; side +1 right, -1 left."""
    (_, _, top), _ = vertebra(f"t{number}")
    end = np.deg2rad(RIB_END_DEG[number - 1])
    theta = np.deg2rad(9.0) + (end - np.deg2rad(9.0)) * SIX_POINTS
    z = top + 4.0 - RIB_DROP_MM[number - 1] * (theta / end) ** 1.15
    a, b, cy = contour(CAVITY, np.minimum(z, -304.0).astype(np.float32), body)
    return [
        (float(side * (aa + 6.5) * np.sin(t)), float(c - (bb + 6.5) * np.cos(t)), float(zz))
        for aa, bb, c, t, zz in zip(a, b, cy, theta, z, strict=True)
    ]


def skeleton(rng: np.random.Generator, body: Body) -> list[Shape]:
    """All bones in painting order. Degenerative joints, which no report tells of, take up tracer."""
    paired = _shoulder() + _pelvis() + _femur()
    shapes = _spine() + _ribs(body) + _sternum() + paired + [mirrored(shape) for shape in paired]
    return shapes + _arthrosis(rng)


def _spine() -> list[Shape]:
    shapes: list[Shape] = []
    centres = [vertebra(name)[0] for name in VERTEBRAE]
    shapes += tube("disc", [*centres[1:], (0, -46, -728)], 9.0)
    for name in VERTEBRAE:
        (_, y, z), (half_x, half_y, half_z) = vertebra(name)
        canal = 8.5
        back = y - half_y - canal
        shapes += [
            slab("bone", (0, back, z), (half_x * 0.85, canal + 5, half_z * 0.75)),
            capsule("bone", (half_x * 0.7, back, z), (half_x + 16, back - 8, z + 2), 4.5),
            capsule("bone", (-half_x * 0.7, back, z), (-half_x - 16, back - 8, z + 2), 4.5),
            capsule("bone", (0, back - 10, z - 2), (0, back - 26, z - 12), 4.0),
            slab("bone", (0, y, z), (half_x, half_y, half_z)),
            slab("marrow", (0, y, z), (half_x - 2.0, half_y - 2.0, half_z - 1.5)),
        ]
    behind = [(0.0, y - vertebra(n)[1][1] - 8.5, z) for n, (_, y, z) in zip(VERTEBRAE, centres, strict=True)]
    shapes += tube("fat", behind, 8.0)
    shapes += tube("cord", behind[:20], 5.0)
    shapes += [  # the sacrum, curving backwards, then the coccyx
        ellipsoid("bone", (0, -58, -742), (52, 22, 20), (-25, 0, 0)),
        ellipsoid("bone", (0, -74, -772), (46, 17, 20), (-20, 0, 0)),
        ellipsoid("bone", (0, -84, -803), (34, 12, 20)),
        ellipsoid("bone", (0, -82, -834), (20, 9, 17), (20, 0, 0)),
        ellipsoid("bone", (0, -72, -858), (8, 7, 13), (25, 0, 0)),
        ellipsoid("marrow", (0, -58, -742), (48, 18, 17), (-25, 0, 0)),
        ellipsoid("marrow", (0, -74, -772), (42, 13, 18), (-20, 0, 0)),
        ellipsoid("marrow", (0, -84, -803), (30, 8.5, 18)),
        ellipsoid("fat", (0, -80, -762), (9, 4, 32), (-20, 0, 0)),
    ]
    return shapes


def _ribs(body: Body) -> list[Shape]:
    shapes: list[Shape] = []
    for number in range(1, 13):
        for side in (1, -1):
            path = rib_path(number, side, body)
            shapes += tube("bone", path, 5.2)
            x, y, z = path[-1]
            if number <= 7:
                shapes += tube("cartilage", [path[-1], (0.5 * x, y + 10, z + 2), (side * 15, y + 13, z + 8)], 5.0)
            elif number <= 10:
                shapes += tube("cartilage", [path[-1], (0.72 * x, y + 16, z + 22)], 4.5)
    return shapes


def _sternum() -> list[Shape]:
    return [
        ellipsoid("bone", (0, 72, -347), (27, 8, 26), (18, 0, 0)),
        ellipsoid("marrow", (0, 72, -347), (23, 5, 22), (18, 0, 0)),
        ellipsoid("bone", (0, 95, -420), (18, 7, 62), (10, 0, 0)),
        ellipsoid("marrow", (0, 95, -420), (14, 4, 58), (10, 0, 0)),
        capsule("cartilage", (0, 103, -478), (0, 102, -500), 6),
    ]


def _shoulder() -> list[Shape]:
    """Right shoulder girdle."""
    return [
        *tube("bone", [(18, 62, -334), (70, 50, -322), (112, 10, -318), (150, -12, -322)], 6.5),
        ellipsoid("bone", (98, -86, -402), (46, 5, 68), (-6, 8, 32)),
        capsule("bone", (66, -92, -360), (150, -40, -328), 6.0),  # spine of the scapula and acromion
        ellipsoid("bone", (140, -38, -352), (10, 12, 17)),  # glenoid
        ellipsoid("cortical", (164, -24, -350), (25, 25, 26)),
        ellipsoid("marrow", (164, -24, -350), (22, 22, 23)),
    ]


def _pelvis() -> list[Shape]:
    """Right hip bone: wing, roof of the socket, ischium, pubis."""
    wing = ((88, -18, -742), (9, 70, 58), (0, 14, -32))
    return [
        ellipsoid("bone", *wing),
        ellipsoid("marrow", wing[0], (5, 64, 53), wing[2]),
        capsule("bone", (84, -28, -790), (88, -8, -818), 17),
        ellipsoid("bone", (84, -6, -836), (33, 33, 33)),
        ellipsoid("cartilage", (94, -6, -840), (27, 28, 28)),
        *tube("bone", [(70, 20, -842), (40, 44, -858), (12, 50, -872)], 9),
        *tube("bone", [(74, -26, -858), (60, -42, -890), (54, -44, -905)], 14),
        *tube("bone", [(54, -40, -908), (30, 5, -898), (12, 42, -884)], 7),
        *tube("marrow", [(74, -26, -858), (60, -42, -890), (54, -44, -905)], 9),
        capsule("marrow", (84, -28, -790), (86, -10, -812), 12),
    ]


def _femur() -> list[Shape]:
    """Right femur down to the end of the field of view."""
    outer = [
        ellipsoid("cortical", (92, -6, -838), (24, 24, 24)),
        capsule("cortical", (98, -8, -845), (134, -16, -872), 15),
        ellipsoid("cortical", (140, -20, -882), (19, 21, 24)),
        *tube("cortical", [(136, -16, -892), (126, -10, -1000), (110, -6, -1400)], 15),
    ]
    inner = [
        ellipsoid("marrow", (92, -6, -838), (21.5, 21.5, 21.5)),
        capsule("marrow", (98, -8, -845), (134, -16, -872), 11),
        ellipsoid("marrow", (140, -20, -882), (16, 18, 21)),
        *tube("yellow_marrow", [(136, -16, -892), (126, -10, -1000), (110, -6, -1400)], 7.5),
    ]
    return outer + inner


def _arthrosis(rng: np.random.Generator) -> list[Shape]:
    """Worn joints: shoulders, hips, facets, sternoclavicular."""
    places: list[Point] = [(150, -24, -340), (100, -2, -812), (20, 62, -336), (20, -72, -690), (17, -26, -240)]
    found: list[Shape] = []
    for x, y, z in places:
        for side in (1, -1):
            if rng.random() < 0.14:
                size = rng.uniform(4.0, 8.0)
                found.append(ellipsoid("arthrosis", (side * x, y, z), (size, size * 1.3, size)))
    return found


def skull() -> list[Shape]:
    """Cranium, jaws and air spaces of the head."""
    right_jaw = tube("cortical", [(47, 2, -150), (45, 10, -190), (26, 58, -204), (0, 70, -207)], 6.0)
    return [
        ellipsoid("skull", (0, -2, -73), (72, 92, 71)),
        ellipsoid("skull", (0, -40, -128), (52, 40, 26)),
        *right_jaw,
        *(mirrored(shape) for shape in right_jaw),
        *tube("cortical", [(-26, 56, -178), (0, 68, -180), (26, 56, -178)], 6.0),
        ellipsoid("air", (24, 56, -150), (14, 16, 16)),
        ellipsoid("air", (-24, 56, -150), (14, 16, 16)),
        ellipsoid("air", (0, 62, -146), (8, 26, 22)),
        ellipsoid("air", (0, 78, -92), (18, 8, 10)),
        ellipsoid("air", (46, -28, -140), (8, 10, 12)),
        ellipsoid("air", (-46, -28, -140), (8, 10, 12)),
    ]
