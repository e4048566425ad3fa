"""What each organ looks like: CT numbers and tracer uptake, with where the ranges come from.

CT numbers [HU] are those of unenhanced scans: tissues after Schneider, Pedroni and Lomax, Phys Med Biol 1996;41:111;
they differ between scanners by several HU (Lamba et al., AJR 2014;203:1013), as they do between the phantom's patients.

Uptake [SUVbw, mean over the organ]:
FDG after Wang et al., Mol Imaging Biol 2007;9:83 (cerebellum 8.0 +- 2.2, palatine tonsils 3.5 +- 1.4, testes 2.6)
and Zincirkeser et al., J Int Med Res 2007;35:231 (liver about 2, blood pool and spleen a little below, marrow 1-1.5,
muscle below 1); urine reaches tens. DOTATATE by the order that Ozguven et al., Mol Imaging Radionucl Ther 2021;30:39
report: spleen, kidneys, adrenals, liver, stomach, small bowel, prostate, pancreas, thyroid; little elsewhere. DCFPyL
after Li et al., J Nucl Med 2017;58:942 (kidneys 20 +- 5, submandibular 9.5, parotid 9, lacrimal 6.5, liver 5.0 +- 0.7,
spleen 4.0 +- 1.5) and Szabo et al., Mol Imaging Biol 2015;17:565 (bladder, proximal small bowel). Fluciclovine after
the procedure guideline of Nanni et al., Eur J Nucl Med Mol Imaging 2020;47:579 (liver and pancreas highest, marrow and
muscle moderate, little in urine). Small organs are given more than is measured in them, since the blur takes it away.
Where no source gives a number, the value is an estimate that keeps the order of the organs.
"""

from __future__ import annotations

import numpy as np

__all__ = ["NAMES", "hu_table", "suv_table"]

Range = tuple[float, float]
TRACER_COLUMN = {"FDG": 1, "DOTATATE": 2, "DCFPyL": 3, "fluciclovine": 4}

# organ: HU, FDG, DOTATATE, DCFPyL, fluciclovine
TISSUES: dict[str, tuple[float, Range, Range, Range, Range]] = {
    "outside": (-1000, (0, 0), (0, 0), (0, 0), (0, 0)),
    "air": (-990, (0.05, 0.1), (0.05, 0.1), (0.05, 0.1), (0.05, 0.1)),
    "couch": (-320, (0, 0), (0, 0), (0, 0), (0, 0)),
    "fat": (-102, (0.2, 0.4), (0.2, 0.4), (0.2, 0.4), (0.3, 0.5)),
    "muscle": (54, (0.55, 0.85), (0.8, 1.2), (0.5, 0.8), (1.0, 1.6)),
    "visceral_fat": (-100, (0.35, 0.55), (0.4, 0.6), (0.35, 0.5), (0.6, 0.9)),
    "mediastinum": (-40, (0.9, 1.3), (0.6, 0.9), (0.7, 1.0), (1.0, 1.3)),
    "lung": (-820, (0.35, 0.6), (0.3, 0.5), (0.3, 0.5), (0.4, 0.6)),
    "blood": (44, (1.4, 2.0), (1.2, 1.8), (1.2, 1.8), (1.3, 1.8)),
    "heart_chambers": (43, (1.4, 1.9), (1.2, 1.7), (1.2, 1.7), (1.3, 1.7)),
    "myocardium": (48, (1.6, 12.0), (1.5, 2.0), (1.4, 1.9), (2.0, 3.0)),
    "esophagus": (35, (1.2, 1.9), (1.2, 1.8), (1.0, 1.4), (1.5, 2.0)),
    "liver": (57, (1.8, 2.6), (4.5, 7.5), (4.0, 6.3), (8.0, 12.0)),
    "gallbladder": (8, (0.7, 1.1), (1.5, 3.0), (2.0, 9.0), (1.5, 3.0)),
    "spleen": (48, (1.5, 2.2), (14.0, 26.0), (2.3, 6.0), (2.5, 3.5)),
    "pancreas": (40, (1.2, 1.8), (2.5, 4.5), (1.5, 2.5), (7.0, 11.0)),
    "adrenal": (18, (1.1, 1.8), (5.0, 9.0), (1.8, 3.2), (2.0, 3.0)),
    "kidney_cortex": (33, (2.2, 3.4), (10.0, 18.0), (14.0, 27.0), (2.8, 4.0)),
    "kidney_pelvis": (8, (5.0, 25.0), (8.0, 14.0), (12.0, 24.0), (1.5, 3.0)),
    "ureter": (12, (3.0, 12.0), (4.0, 9.0), (5.0, 15.0), (1.5, 2.5)),
    "bladder": (6, (9.0, 42.0), (8.0, 28.0), (14.0, 50.0), (1.5, 4.0)),
    "stomach_wall": (42, (1.5, 3.2), (3.0, 5.0), (1.8, 3.0), (2.2, 3.6)),
    "stomach_lumen": (20, (0.4, 0.7), (0.5, 0.8), (0.4, 0.7), (0.6, 0.9)),
    "bowel_gas": (-780, (0.3, 0.6), (0.5, 0.8), (0.5, 0.8), (0.5, 0.8)),
    "duodenum": (32, (1.3, 2.4), (3.0, 6.0), (4.0, 10.0), (2.0, 3.5)),
    "small_bowel": (30, (1.0, 2.2), (1.8, 3.5), (1.8, 5.0), (1.6, 2.8)),
    "colon": (22, (0.8, 2.0), (1.2, 2.4), (0.9, 1.7), (1.2, 2.0)),
    "bowel_focus": (34, (3.0, 8.5), (3.5, 6.5), (4.0, 9.0), (2.8, 4.5)),
    "prostate": (40, (1.3, 2.0), (1.6, 2.6), (2.0, 3.6), (2.4, 3.4)),
    "uterus": (48, (1.5, 2.8), (1.4, 2.2), (1.0, 1.6), (1.5, 2.2)),
    "gonad": (30, (1.8, 3.2), (1.0, 1.6), (0.9, 1.4), (1.4, 2.0)),
    "breast": (15, (0.6, 1.1), (0.7, 1.2), (0.5, 0.8), (1.0, 1.5)),
    "bone": (620, (0.5, 0.8), (0.4, 0.7), (0.4, 0.6), (1.2, 2.0)),
    "cortical": (1050, (0.4, 0.6), (0.3, 0.5), (0.3, 0.5), (0.9, 1.3)),
    "marrow": (190, (1.0, 1.6), (0.6, 1.1), (0.6, 1.0), (2.2, 3.4)),
    "yellow_marrow": (-55, (0.3, 0.5), (0.3, 0.5), (0.3, 0.4), (0.6, 0.9)),
    "disc": (80, (0.5, 0.8), (0.5, 0.8), (0.4, 0.6), (0.9, 1.3)),
    "cord": (36, (1.4, 2.1), (0.4, 0.7), (0.3, 0.5), (0.8, 1.1)),
    "cartilage": (110, (0.4, 0.7), (0.4, 0.7), (0.4, 0.6), (0.7, 1.0)),
    "arthrosis": (400, (2.2, 3.6), (1.2, 2.0), (1.2, 2.2), (2.2, 3.4)),
    "skull": (950, (0.5, 0.8), (0.3, 0.5), (0.3, 0.5), (0.8, 1.2)),
    "grey_matter": (38, (6.5, 12.0), (0.15, 0.3), (0.15, 0.3), (0.3, 0.5)),
    "white_matter": (29, (2.8, 4.5), (0.12, 0.2), (0.12, 0.2), (0.25, 0.4)),
    "pituitary": (45, (2.0, 3.0), (4.0, 9.0), (0.6, 1.0), (1.5, 3.0)),
    "eye": (12, (0.8, 1.4), (0.4, 0.6), (0.4, 0.6), (0.5, 0.8)),
    "lacrimal": (30, (1.2, 1.8), (1.0, 1.8), (8.0, 15.0), (1.2, 1.8)),
    "nasopharynx": (45, (1.8, 3.2), (1.5, 2.4), (1.8, 3.0), (2.0, 3.0)),
    "parotid": (15, (1.5, 2.4), (1.8, 3.6), (8.0, 14.0), (2.2, 3.2)),
    "submandibular": (35, (1.6, 2.6), (2.0, 4.0), (9.0, 16.0), (2.0, 3.0)),
    "tonsil": (45, (2.6, 5.2), (1.8, 2.8), (1.8, 3.0), (2.2, 3.2)),
    "larynx": (60, (1.4, 3.0), (1.0, 1.6), (0.9, 1.5), (1.4, 2.0)),
    "thyroid": (95, (1.1, 1.9), (2.0, 4.5), (1.0, 1.6), (1.8, 2.6)),
    "brown_fat": (-80, (3.0, 9.0), (0.6, 1.0), (0.4, 0.7), (0.6, 0.9)),
    "injection": (30, (2.5, 9.0), (2.0, 6.0), (2.0, 6.0), (2.0, 6.0)),
}
NAMES = tuple(TISSUES)

# Which uptake varies over orders rather than by a share: drawn evenly in the logarithm.
LOGARITHMIC = {"myocardium", "kidney_pelvis", "ureter", "bladder", "bowel_focus", "brown_fat", "gallbladder"}


def hu_table(rng: np.random.Generator) -> dict[str, float]:
    """CT number of every organ for one patient; soft tissue differs by a few HU, bone with age and build."""
    bone = rng.normal(1.0, 0.12)
    return {
        name: float(row[0] * bone if row[0] > 150 else row[0] + rng.normal(0.0, 2.0) * (row[0] > -200))
        for name, row in TISSUES.items()
    }


def suv_table(rng: np.random.Generator, tracer: str) -> dict[str, float]:
    """Uptake of every organ for one patient and tracer."""
    column = TRACER_COLUMN[tracer]
    table: dict[str, float] = {}
    for name, row in TISSUES.items():
        low, high = row[column]  # type: ignore[misc]
        where = rng.random()
        table[name] = low * (high / low) ** where if name in LOGARITHMIC else low + (high - low) * where
    table["heart_chambers"] = table["blood"] * 0.95  # one blood flows through all
    return table
