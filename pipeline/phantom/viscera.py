"""Soft organs of head, chest, abdomen and pelvis as shapes in standard space."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from petground.pipeline.phantom.canvas import Point, Shape, capsule, ellipsoid, mirrored, tube, worm

__all__ = ["COLON", "URETER", "abdomen", "chest", "head_and_neck", "pelvis"]

ABDOMEN = ("visceral_fat",)
CHEST = ("mediastinum", "lung", "visceral_fat")

COLON: tuple[Point, ...] = (
    (88, 12, -800), (98, 2, -740), (98, -6, -690), (82, 22, -662), (40, 58, -672), (-10, 64, -690), (-62, 48, -655),
    (-96, 6, -606), (-104, -18, -660), (-104, -16, -730), (-84, 8, -782), (-42, 4, -812), (-12, 6, -822),
    (-14, -34, -828), (0, -48, -846), (0, -46, -890),
)  # fmt: skip
URETER: tuple[Point, ...] = (
    (44, -28, -640),
    (37, -8, -690),
    (44, -4, -735),
    (56, -16, -785),
    (44, -10, -830),
    (14, 2, -862),
)


class Jitter:
    """Places and sizes that differ from person to person, drawn in a fixed order from one generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def at(self, point: Point, spread_mm: float = 3.0) -> Point:
        x, y, z = np.asarray(point) + self.rng.normal(0.0, spread_mm, 3)
        return float(x), float(y), float(z)

    def size(self, semi: Point, spread: float = 0.06) -> Point:
        x, y, z = np.asarray(semi) * self.rng.normal(1.0, spread) * self.rng.normal(1.0, spread / 2, 3)
        return float(x), float(y), float(z)

    def phase(self) -> float:
        return float(self.rng.uniform(0, 6.28))


def both(shapes: Iterable[Shape]) -> list[Shape]:
    right = list(shapes)
    return right + [mirrored(shape) for shape in right]


def head_and_neck(rng: np.random.Generator) -> list[Shape]:
    """Brain, glands, tonsils, airway down to the carina, thyroid."""
    j = Jitter(rng)
    brain = [
        ellipsoid("grey_matter", (0, -2, -72), (65, 85, 63)),
        ellipsoid("grey_matter", (0, -45, -126), (46, 32, 20)),
    ]
    halves = [
        ellipsoid("white_matter", (29, -4, -66), (25, 60, 34), (0, 8, 0), lumps=0.12, phase=j.phase()),
        ellipsoid("grey_matter", (21, 6, -82), (9, 20, 13)),
    ]
    cleft = [
        ellipsoid("white_matter", (0, -2, -50), (3, 82, 40)),
        ellipsoid("white_matter", (0, -20, -118), (12, 14, 22)),
    ]
    glands = [
        ellipsoid("eye", (32, 72, -112), (12, 12, 12)),
        ellipsoid("lacrimal", (45, 66, -100), (5, 6, 5)),
        ellipsoid("parotid", j.at((55, 0, -168), 2), j.size((11, 19, 23)), lumps=0.06, phase=j.phase()),
        ellipsoid("submandibular", j.at((31, 34, -208), 2), j.size((10, 14, 11))),
        ellipsoid("tonsil", j.at((17, 20, -182), 1.5), j.size((6, 8, 10), 0.15)),
        ellipsoid("larynx", (6, 24, -243), (3, 9, 4)),
        ellipsoid("thyroid", j.at((20, 14, -268), 1.5), j.size((9, 9, 20), 0.12)),
    ]
    airway = [
        *tube("air", [(0, 16, -165), (0, 18, -215), (0, 22, -240), (0, 12, -262), (0, -6, -310)], 7.5),
        *tube("air", [(0, -6, -310), (0, -22, -385)], 9.0),
        *tube("esophagus", [(0, -2, -255), (-4, -24, -310), (-3, -42, -385), (-8, -42, -450), (-14, -22, -532)], 7.0),
    ]
    return [
        *brain,
        *both(halves),
        *cleft,
        ellipsoid("pituitary", (0, 14, -118), (6, 5, 5)),
        ellipsoid("nasopharynx", (0, 12, -158), (15, 7, 8)),
        *airway,
        *both(glands),
        ellipsoid("thyroid", (0, 24, -274), (14, 4, 7)),
    ]


def chest(rng: np.random.Generator) -> list[Shape]:
    """Heart with its left ventricle to the patient's left, great vessels, main bronchi."""
    j = Jitter(rng)
    x, y, z = j.at((-22, 26, -474), 4)
    size = rng.normal(1.0, 0.06)
    heart = [
        ellipsoid("mediastinum", (x, y, z), (62 * size, 52 * size, 56 * size), (0, -14, 22), over=CHEST, motion=0.5),
        ellipsoid("heart_chambers", (x + 14, y + 2, z + 4), (46 * size, 44 * size, 50 * size), over=CHEST, motion=0.5),
        ellipsoid(
            "myocardium", (x - 24, y + 2, z - 6), (34 * size, 33 * size, 47 * size), (38, 42, 0), motion=0.5,
            over=(*CHEST, "heart_chambers"),
        ),
        ellipsoid(
            "heart_chambers", (x - 21, y + 0, z - 3), (23 * size, 22 * size, 37 * size), (38, 42, 0), motion=0.5,
            over=("myocardium",),
        ),
    ]  # fmt: skip
    arteries = [
        *tube("blood", [(6, 14, -452), (16, 26, -412), (10, 22, -376), (-2, 4, -358)], 15.0, over=CHEST),
        *tube("blood", [(-2, 4, -358), (-14, -22, -364), (-18, -38, -392)], 12.5, over=CHEST),
        *tube("blood", [(-18, -38, -392), (-20, -40, -450), (-16, -33, -520), (-10, -22, -560)], 11.5, over=CHEST),
        *tube("blood", [(-20, 22, -440), (-16, 14, -410), (-36, -8, -404)], 13.0, over=CHEST),
        *tube("blood", [(-4, 6, -410), (40, -8, -412)], 10.0, over=CHEST),
        *tube("blood", [(26, 14, -440), (24, 12, -350), (34, 18, -322)], 9.5, over=CHEST),
        *both(tube("blood", [(14, 6, -345), (26, 2, -300), (27, 6, -215), (30, 4, -180)], 4.5)),
    ]
    bronchi = both(tube("air", [(0, -22, -385), (28, -24, -406), (52, -26, -424)], 6.0))
    branches = both(tube("blood", [(42, -10, -412), (74, -22, -440), (92, -40, -480)], 4.5, over=("lung",)))
    more = both(tube("blood", [(42, -6, -408), (72, 10, -380), (86, 16, -350)], 3.5, over=("lung",)))
    return [*arteries, *heart, *bronchi, *branches, *more]


def abdomen(rng: np.random.Generator) -> list[Shape]:
    """Liver to the patient's right, stomach and spleen to the left, kidneys behind, bowel, vessels."""
    j = Jitter(rng)
    muscles = both(
        [
            *tube("muscle", [(32, -40, -580), (46, -30, -680), (70, 0, -780), (86, 22, -850)], 17.0, over=ABDOMEN),
            ellipsoid("muscle", (62, -64, -680), (24, 13, 60), over=ABDOMEN),
        ]
    )
    vessels = [
        *tube("blood", [(-10, -22, -560), (-12, -8, -620), (-8, -8, -690)], 9.5, over=(*ABDOMEN, "muscle")),
        *tube(
            "blood",
            [(20, -14, -690), (22, -14, -620), (24, -14, -548), (20, -4, -512)],
            11.0,
            over=(*ABDOMEN, "muscle"),
        ),
        *both(tube("blood", [(8, -9, -690), (42, -8, -760), (72, 30, -840)], 6.5, over=(*ABDOMEN, "muscle"))),
        *both(
            tube(
                "blood", [(72, 30, -840), (84, 58, -880), (86, 48, -960), (80, 30, -1100)], 6.0, over=("muscle", "fat")
            )
        ),
    ]
    return [*muscles, *_bowel(rng, j), *vessels, *_stomach(rng, j), *_upper(rng, j), *_kidneys(j)]


def _upper(rng: np.random.Generator, j: Jitter) -> list[Shape]:
    """Liver over everything it meets, spleen, pancreas, duodenum, adrenals. Liver and spleen fill the domes."""
    grown = rng.normal(1.0, 0.05)
    room = (*ABDOMEN, "colon", "small_bowel", "stomach_wall", "stomach_lumen", "bowel_gas")
    x, y, z = j.at((76, 0, -572), 3)
    liver = [
        ellipsoid(
            "liver",
            (x, y, z),
            (70 * grown, 84 * grown, 92 * grown),
            (0, 6, 0),
            lumps=0.03,
            phase=j.phase(),
            over=room,
            motion=1.0,
        ),
        ellipsoid("liver", j.at((8, 42, -548), 3), j.size((74, 38, 38)), (0, -12, 0), over=room, motion=1.0),
        ellipsoid("liver", (50, 30, -545), (60, 50, 52), over=room, motion=1.0),
        ellipsoid("gallbladder", j.at((50, 46, -636), 3), j.size((13, 17, 25), 0.2), over=(*room, "liver"), motion=1.0),
        *tube("blood", [(20, 4, -600), (34, 2, -585), (52, 4, -572)], 6.0, over=("liver", *ABDOMEN), motion=1.0),
    ]
    spleen = ellipsoid(
        "spleen", j.at((-100, -30, -556), 3), j.size((25, 42, 54), 0.1), (18, -14, -18), lumps=0.04, phase=j.phase(),
        over=(*ABDOMEN, "stomach_wall", "stomach_lumen", "bowel_gas", "colon"), motion=0.9,
    )  # fmt: skip
    pancreas = tube(
        "pancreas", [(30, 16, -634), (14, 24, -612), (-24, 20, -598), (-74, -6, -584)], 10.5, over=ABDOMEN, motion=0.5
    )
    duodenum = tube(
        "duodenum", [(22, 40, -618), (48, 16, -626), (48, 8, -664), (12, 6, -674), (-24, 14, -652)], 11.0,
        over=(*ABDOMEN, "colon", "small_bowel"), motion=0.4,
    )  # fmt: skip
    adrenals = both(
        [
            *tube(
                "adrenal",
                [(40, -46, -582), (36, -34, -568), (34, -26, -562)],
                3.2,
                over=(*ABDOMEN, "muscle"),
                motion=0.5,
            ),
            capsule("adrenal", (36, -34, -568), (45, -42, -572), 3.0, over=(*ABDOMEN, "muscle"), motion=0.5),
        ]
    )
    return [*adrenals, spleen, *duodenum, *pancreas, *liver]


def _kidneys(j: Jitter) -> list[Shape]:
    shapes: list[Shape] = []
    for side, z in ((1, -626), (-1, -610)):
        x, y, zz = j.at((64, -40, z), 3)
        semi = j.size((26, 24, 53), 0.07)
        over = (*ABDOMEN, "muscle", "liver", "colon", "spleen")
        shapes += [
            ellipsoid(
                "kidney_cortex", (side * x, y, zz), semi, (10, -10 * side, 20 * side), over=over, motion=0.5, lumps=0.03
            ),
            ellipsoid("fat", (side * (x - 22), y + 8, zz), (12, 11, 16), over=("kidney_cortex",), motion=0.5),
            ellipsoid(
                "kidney_pelvis", (side * (x - 13), y + 4, zz), (8, 7, 15), over=("kidney_cortex", "fat"), motion=0.5
            ),
            ellipsoid("kidney_pelvis", (side * (x - 6), y, zz + 16), (6, 6, 7), over=("kidney_cortex",), motion=0.5),
            ellipsoid("kidney_pelvis", (side * (x - 6), y, zz - 16), (6, 6, 7), over=("kidney_cortex",), motion=0.5),
        ]
    return shapes


def _stomach(rng: np.random.Generator, j: Jitter) -> list[Shape]:
    filled = rng.uniform(0.75, 1.1)
    parts: list[tuple[Point, Point]] = [
        (j.at((-64, 2, -545), 3), (40 * filled, 42 * filled, 40 * filled)),
        (j.at((-56, 34, -592), 3), (32 * filled, 29 * filled, 48 * filled)),
        (j.at((-16, 48, -632), 3), (36 * filled, 18 * filled, 17 * filled)),
    ]
    wall = [ellipsoid("stomach_wall", c, s, over=(*ABDOMEN, "colon", "small_bowel"), motion=0.8) for c, s in parts]
    lumen = [
        ellipsoid("stomach_lumen", c, (s[0] - 5, s[1] - 5, s[2] - 5), over=("stomach_wall",), motion=0.8)
        for c, s in parts
    ]
    (x, y, z), (_, b, c) = parts[0]
    gas = ellipsoid("bowel_gas", (x, y + 0.45 * b, z + 0.2 * c), (24, 16, 20), over=("stomach_lumen",), motion=0.8)
    return [*wall, *lumen, gas]


def _bowel(rng: np.random.Generator, j: Jitter) -> list[Shape]:
    shapes: list[Shape] = []
    for _ in range(4):
        box = np.array([(-72, 72), (10, 62), (-805, -660)])
        points = rng.uniform(box[:, 0], box[:, 1], (9, 3))
        points = points[np.argsort(-points[:, 2])]
        points[:, 0] *= np.clip(1.2 - np.abs(points[:, 2] + 720) / 200, 0.5, 1)
        shapes += tube("small_bowel", [j.at(tuple(p), 0.1) for p in points], rng.uniform(9, 12), over=ABDOMEN)
    path = worm(rng, COLON[:12], 5.0) + list(COLON[12:])
    shapes += tube("colon", path, rng.uniform(16.0, 20.0), over=(*ABDOMEN, "small_bowel"))
    for point in path[:-6]:
        if rng.random() < 0.6:
            shapes.append(ellipsoid("bowel_gas", j.at(point, 3), (9, 7, 11), over=("colon",)))
    for _ in range(int(rng.choice(4, p=[0.3, 0.35, 0.25, 0.1]))):
        start = int(rng.integers(1, len(path) - 5))
        stretch = path[start : start + int(rng.integers(2, 4))]
        shapes += tube("bowel_focus", stretch, rng.uniform(6.0, 10.0), over=("colon", "bowel_gas"))
    return shapes


def pelvis(rng: np.random.Generator, sex: str) -> list[Shape]:
    """Bladder, genital organs, pieces of filled ureter."""
    j = Jitter(rng)
    full = rng.uniform(0.6, 1.05)
    room = (*ABDOMEN, "colon", "small_bowel", "bowel_gas", "bowel_focus", "muscle")
    shapes: list[Shape] = []
    if sex == "F":
        shapes.append(ellipsoid("uterus", j.at((4, -6, -828), 4), j.size((24, 24, 32), 0.12), (35, 0, 0), over=room))
        shapes += [ellipsoid("gonad", j.at((s * 44, -2, -815), 3), (12, 9, 12), over=room) for s in (1, -1)]
    else:
        shapes.append(ellipsoid("prostate", (0, 6, -890), j.size((23, 17, 18), 0.15), over=(*room, "fat")))
        shapes += [
            ellipsoid("gonad", (s * 16, 76, -955), j.size((12, 14, 18)), over=("fat", "muscle")) for s in (1, -1)
        ]
    bladder = ellipsoid(
        "bladder", (rng.normal(0, 3), 20, -862 + 20 * full), (40 * full, 33 * full, 27 * full), over=(*room, "uterus")
    )
    for side in (1, -1):
        for _ in range(int(rng.choice(3, p=[0.55, 0.32, 0.13]))):
            index = int(rng.integers(0, len(URETER) - 1))
            a, b = np.asarray(URETER[index]), np.asarray(URETER[index + 1])
            t = rng.uniform(0.1, 0.6)
            start, end = a + (b - a) * t, a + (b - a) * min(1.0, t + rng.uniform(0.15, 0.5))
            flip = np.array([side, 1, 1])
            shapes.append(capsule("ureter", tuple(start * flip), tuple(end * flip), rng.uniform(2.2, 3.4), over=room))
    return [*shapes, bladder]


def brown_fat(rng: np.random.Generator) -> list[Shape]:
    """Activated brown fat in the supraclavicular and paravertebral regions, now and then, on both sides but unlike."""
    shapes: list[Shape] = []
    places: list[Point] = [(58, 4, -300), (84, -8, -310), (112, -30, -330), (24, -62, -380), (24, -66, -420)]
    for place in places:
        for side in (1, -1):
            if rng.random() < 0.8:
                x, y, z = np.asarray(place) * [side, 1, 1] + rng.normal(0, 3, 3)
                semi = tuple(rng.uniform(4.0, 9.0, 3))
                shapes.append(
                    ellipsoid("brown_fat", (x, y, z), semi, over=("muscle", "fat", "mediastinum", "visceral_fat"))
                )
    return shapes
