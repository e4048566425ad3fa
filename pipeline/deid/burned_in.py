"""Objects that may show or tell an identity outside their header: which are left out, and text in pixels.

By default only PET, CT and MR images and what points at them (SEG, RTSTRUCT, real world value maps, registrations)
leave. Captures, dose reports, documents and structured reports are left out whatever their header says.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from petground.pipeline.deid.profile import Profile

__all__ = ["holds_text", "left_out", "suspect"]

IMAGES = frozenset(
    "1.2.840.10008.5.1.4.1.1." + tail for tail in ("128", "130", "128.1", "2", "2.1", "2.2", "4", "4.1", "4.4", "20")
)  # PET, enhanced and converted; CT; MR; NM
POINTERS = frozenset(
    "1.2.840.10008.5.1.4.1.1." + tail for tail in ("66.4", "66.7", "66.1", "66.3", "67", "481.3")
)  # SEG, label map SEG, registrations, real world value map, RTSTRUCT
REPORTS = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.88(\.\d+)+")
_KINDS = (  # why another object is left out, by the rest of its class's UID
    (r"\.7(\.\d+)?$", "secondary_capture"),
    (r"\.88\.(67|76|74|73|75)$", "dose_report"),
    (r"\.88(\.\d+)+$", "structured_report"),
    (r"\.104(\.\d+)+$", "document"),
    (r"\.11(\.\d+)+$", "presentation_state"),
    (r"\.66$", "raw_data"),
    (r"\.77(\.\d+)+$", "photograph_or_video"),
    (r"\.(6|3)(\.\d+)*$", "ultrasound"),
)
_CAPTURE = re.compile(
    r"screen|dose|protocol|summary|snapshot|captur|report|result|key ?images?|print|paste|export ?to|"
    r"fusion.*(?:rgb|jpe?g)",
    re.I,
)
_CAPTURE_SERIES = re.compile(
    r"\W*(?:(?:patient|exam|series|ct|pet)\W+)?(?:screen\W?(?:saves?|shots?|captures?)|dose\W(?:reports?|info\w*|records?|"
    r"summary|sheet)|protocol|summary|results?|key\W?images?|snapshots?|captures?)(?:\W|\d|page|info|series)*",
    re.I,
)
_CAPTURE_TYPES = frozenset(
    ("SCREEN SAVE", "SCREENSAVE", "DOSE_INFO", "PROTOCOL", "CSA REPORT", "REPORT", "CAPTURE", "VXTL STATE")
)


def left_out(header: Any, profile: Profile) -> str | None:
    """The reason code for which an object does not leave, None when it may. Reads the header only."""
    uid = str(header.get("SOPClassUID", "")).strip()
    if uid in POINTERS:
        return None if profile.segmentations else "segmentation"
    if REPORTS.fullmatch(uid) and profile.structured_reports:
        return None
    if uid not in IMAGES:
        tail = uid.removeprefix("1.2.840.10008.5.1.4.1.1") if uid.startswith("1.2.840.10008.5.1.4.1.1.") else ""
        return next((reason for form, reason in _KINDS if re.match(form, tail)), "other_object")
    if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        return "burned_in_annotation"
    kinds = [str(word).strip().upper() for word in header.get("ImageType") or []]
    if _CAPTURE_TYPES.intersection(kinds) or "ConversionType" in header:
        return "screen_capture"
    if (
        int(header.get("SamplesPerPixel") or 1) != 1
        or str(header.get("PhotometricInterpretation", "")) == "PALETTE COLOR"
    ):
        return "colour_image"
    if "SECONDARY" in kinds[:2] and _CAPTURE.search(str(header.get("SeriesDescription", ""))):
        return "screen_capture"
    if _CAPTURE_SERIES.fullmatch(str(header.get("SeriesDescription", ""))):
        return "screen_capture"
    if _overlay_in_pixels(header):
        return "overlay_in_pixels"
    return None


def _overlay_in_pixels(header: Any) -> bool:
    """Overlays of the old kind lie in unused bits of the pixel data (PS3.3 C.9.2, retired)."""
    return any(
        0x6000 <= tag.group <= 0x60FF and tag.element == 0x0100 and int(header[tag].value or 1) > 1
        for tag in list(header.keys())
    )


def suspect(header: Any) -> bool:
    """Whether an image of an allowed class is one that software has drawn: only those are searched for text."""
    if str(header.get("SOPClassUID", "")) not in IMAGES:
        return False
    kinds = [str(word).strip().upper() for word in header.get("ImageType") or []]
    series = str(header.get("SeriesType", "")).upper()
    return (
        "DERIVED" in kinds[:1]
        or "SECONDARY" in kinds[1:2]
        or any(kind.startswith(("MIP", "PROJECTION", "RENDER", "VOLREN", "3D")) for kind in kinds)
        or "REPROJECTION" in series
        or not kinds
    )


GLYPH_HEIGHT = (5, 40)  # pixels
GLYPHS_IN_LINE = 5
EDGE = 0.3  # of the image height at top and bottom: where viewers and scanners write
STEEP = 0.5  # of the image's range: letters are drawn with the highest or lowest value


def holds_text(frame: NDArray[Any]) -> bool:
    """Whether a frame [rows, columns] shows lines of drawn characters near its top or bottom edge.

    Looks for what drawing software makes and anatomy does not: many small shapes of one height and one value side by
    side on a flat ground. Low contrast, smooth (anti-aliased over tissue), handwritten or rotated text, and text in the
    middle of the image, is not found: a help beside the rules on object types, no proof.
    """
    image = np.asarray(frame, dtype=np.float32)
    if image.ndim != 2 or min(image.shape) < 32:
        return False
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return False
    rows = max(16, round(image.shape[0] * EDGE))
    return any(_lines(part, high - low) for part in (image[:rows], image[-rows:]))


def _lines(part: NDArray[np.float32], span: float) -> bool:
    values, counts = np.unique(part, return_counts=True)
    ground = values[np.argmax(counts)]
    for drawn in (part > ground + STEEP * span, part < ground - STEEP * span):
        if not drawn.any() or drawn.mean() > 0.3:
            continue
        labels, _ = ndimage.label(drawn, structure=np.ones((3, 3)))
        glyphs = []
        for index, place in enumerate(ndimage.find_objects(labels), start=1):
            height, width = (axis.stop - axis.start for axis in place)
            if not (GLYPH_HEIGHT[0] <= height <= GLYPH_HEIGHT[1] and 1 <= width <= 1.6 * height):
                continue
            ink = part[place][labels[place] == index]
            if np.ptp(ink) <= 0.35 * span and _on_ground(part, place, ground, span):
                glyphs.append((place[0].start, height, place[1].start, width))
        if _in_line(glyphs):
            return True
    return False


def _on_ground(part: NDArray[np.float32], place: Any, ground: float, span: float) -> bool:
    """Letters stand on a flat ground: most of the frame around the shape is the ground's value."""
    rows, columns = (slice(max(axis.start - 1, 0), axis.stop + 1) for axis in place)
    box = part[rows, columns]
    edge = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
    return float(np.mean(np.abs(edge - ground) <= 0.1 * span)) >= 0.6


def _in_line(glyphs: list[tuple[int, int, int, int]]) -> bool:
    """Enough shapes of about one height whose feet stand on one line, close to each other."""
    for top, height, _, _ in glyphs:
        foot = top + height
        line = sorted(
            (left, width) for t, h, left, width in glyphs if abs(t + h - foot) <= 2 and 0.6 <= h / height <= 1.7
        )
        run, last = 0, None
        for left, width in line:
            run = run + 1 if last is None or left - last <= 2.5 * height else 1
            last = left + width
            if run >= GLYPHS_IN_LINE:
                return True
    return False
