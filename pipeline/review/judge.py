"""What the page says of a finding in words: measured against reported, side, warnings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from petground.labeling.body import right_of_midline_mm
from petground.labeling.errors import GeometryError
from petground.labeling.numbering import slice_number
from petground.labeling.site import Site
from petground.pipeline.edited import DRAWN
from petground.pipeline.review.load import Case, Item, reason_text
from petground.pipeline.sides import CLEAR_SIDE_MM, heading

__all__ = ["alarms", "describe", "provenance", "side_of", "site_slice", "title"]

SUV_NEAR = 0.1  # the method's own tolerance between label and report (arXiv 2502.00528)
OTHER_SIDE = "Other side?"
WARNINGS = {
    "laterality_contradicts": "The label lies on the other side than the report says.",
    "counted_as_the_report_says": "The report counts slices from the other end than the site; its word was taken.",
    "ambiguous": "Another place fits the report nearly as well.",
    "at_image_edge": "The label reaches the edge of the image.",
    "on_organ": "The label lies on an organ with uptake of its own.",
    "larger_than_stated": "It went far beyond the stated size, and was outlined anew within that reach.",
    "touches_hotter": "It touches something hotter; the border between the two was drawn along the valley.",
    "touches_other": "It touches another lesion or maximum; the border between the two was drawn along the valley.",
}

NOTES = {"touches_hotter", "touches_other"}  # common and harmless: told, not counted as a warning

Words = dict[str, Any]


def title(finding: Mapping[str, Any]) -> str:
    """Side and place as the report has them, for a heading."""
    return heading(finding.get("laterality"), finding.get("site")) or f"Finding {finding['finding_id']}"


def site_slice(case: Case, k: int, site: Site) -> str:
    """The number that the site prints for a stored slice; the array's index where that cannot be told."""
    try:
        return str(slice_number(k, case.pet, site, case.ct))
    except GeometryError:
        return f"index {k}"


def describe(case: Case, item: Item) -> Words:
    """Reported and measured values with a verdict each: ("ok" | "off" | "bad" | "", words)."""
    finding, label = item.finding, item.label
    decimals = finding.get("suv_decimals")
    suv = finding.get("suv")
    words: Words = {
        "suv_reported": "–" if suv is None else f"{suv:.{1 if decimals is None else decimals}f}",
        "slice_reported": finding.get("slice"),
        "laterality": finding.get("laterality"),
        "suv_measured": "–", "slice_measured": "–", "side_measured": "–",
        "suv_verdict": ("", ""), "slice_verdict": ("", ""),
    }  # fmt: skip
    if label is None:
        return words
    measured = float(label["suv_measured"])
    words["suv_measured"] = f"{measured:.2f}"
    words["suv_verdict"] = _suv_verdict(suv, measured, 1 if decimals is None else int(decimals))
    words["slice_measured"] = label["slice_measured"]
    if finding.get("slice") is not None and label["slice_measured"] is not None:
        off = int(label["slice_measured"]) - int(finding["slice"])
        words["slice_verdict"] = ("ok", "same") if off == 0 else ("off", f"{off:+d}")
    if item.voxel_ijk is not None:
        words["side_measured"] = _side_words(right_of_midline_mm(item.voxel_ijk, case.pet, case.ct))
    volume = float(label["volume_ml"])
    confidence = None if label.get("method") == DRAWN else label.get("confidence")  # a person's is not computed
    threshold = label.get("threshold")
    return words | {
        "volume": f"{volume:.1f} ml" if volume >= 1 else f"{volume:.2f} ml",
        "diameter": f"as a ball {20 * (3 * volume / (4 * math.pi)) ** (1 / 3):.0f} mm",
        "threshold": "–" if threshold is None else f"SUV {threshold:.1f}",
        "method": (label.get("method") or "").replace("_", " "),
        "confidence": "–" if confidence is None else f"{confidence:.2f}",
        "confidence_step": round(10 * min(1.0, max(0.0, confidence or 0.0))),
    }


def alarms(case: Case, item: Item, site: Site) -> list[dict[str, str]]:
    """What a reviewer must see before the pictures, the gravest first; level is "bad", "warn" or "note"."""
    found: list[dict[str, str]] = []
    side = item.finding.get("laterality")
    if item.label is None:
        reason = item.finding.get("reason")
        known = reason_text(reason)
        text = " ".join(filter(None, (f"{known[:1].upper()}{known[1:]}.", item.finding.get("detail"))))
        found.append({"level": "warn", "title": "No label.", "text": text})
    elif side in ("left", "right") and item.voxel_ijk is not None:
        right = right_of_midline_mm(item.voxel_ijk, case.pet, case.ct)
        wrong_mm = 0.0 if right is None else (right if side == "left" else -right)
        if wrong_mm > CLEAR_SIDE_MM:
            level = "bad" if wrong_mm > site.midline_margin_mm else "warn"
            other = "right" if side == "left" else "left"
            text = f"The report says {side}; the hottest voxel lies {wrong_mm:.0f} mm {other} of the body’s midline."
            found.append({"level": level, "title": OTHER_SIDE, "text": text})
    if item.label is not None and item.label.get("method") == DRAWN:
        found.append({"level": "note", "title": "Redrawn.", "text": _redrawn(item.label)})
    if item.label is not None:
        for warning in filter(None, (w.strip() for w in (item.label.get("warnings") or "").split(";"))):
            if warning.startswith("laterality") and any(a["title"] == OTHER_SIDE for a in found):
                continue
            level = "bad" if warning.startswith("laterality") else "note" if warning in NOTES else "warn"
            found.append(
                {
                    "level": level,
                    "title": "Note." if level == "note" else "Check.",
                    "text": WARNINGS.get(warning, reason_text(warning)),
                }
            )
        if item.reported_k is None and item.finding.get("slice") is not None:
            found.append({"level": "warn", "title": "Slice.", "text": "The reported slice is not on this image."})
        others = len(item.candidates) - 1
        if others > 0:
            text = f"{others} other place{'s' if others > 1 else ''} could be meant; see the rings and the list below."
            found.append({"level": "warn", "title": "Not the only candidate.", "text": text})
    return sorted(found, key=lambda a: ("bad", "warn", "note").index(a["level"]))


def _redrawn(label: Mapping[str, Any]) -> str:
    """Who drew the outline and when it was handed in, as far as that is known."""
    edited = json.loads(label["provenance"]).get("edited", {})
    who = edited.get("reviewer") or edited.get("creator")
    day = str(edited.get("imported") or "")[:10]
    return (
        f"A person drew this outline{f' ({who})' if who else ''}; it was taken in on {day} in place of the grown one."
    )


def side_of(case: Case, row: Mapping[str, Any]) -> str:
    """On which side of the midline a candidate lies, in words."""
    voxel_ijk = (int(row["voxel_i"]), int(row["voxel_j"]), int(row["voxel_k"]))
    return _side_words(right_of_midline_mm(voxel_ijk, case.pet, case.ct))


def provenance(item: Item) -> list[tuple[str, str]]:
    """Name and value of everything that made the label."""
    if item.label is None:
        return [("finding", item.finding_id), ("reason", str(item.finding.get("reason")))]
    known = [("finding", item.finding_id), ("mask", str(item.label["mask_path"]))]
    if item.voxel_ijk is not None:
        known.append(("hottest voxel i, j, k", ", ".join(map(str, item.voxel_ijk))))
    try:
        made = json.loads(item.label.get("provenance") or "{}")
    except ValueError:
        made = {"provenance": item.label["provenance"]}
    return known + [(str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in made.items()]


def _suv_verdict(reported: float | None, measured: float, decimals: int) -> tuple[str, str]:
    if reported is None:
        return "", ""
    half = 0.5 * 10.0**-decimals
    if reported - half - 1e-6 <= measured <= reported + half + 1e-6:
        return "ok", "agrees as printed"
    level = "off" if abs(measured - reported) <= SUV_NEAR + half else "bad"
    return level, f"{measured - reported:+.2f}"


def _side_words(right_mm: float | None) -> str:
    if right_mm is None:
        return "–"
    if abs(right_mm) < CLEAR_SIDE_MM:
        return "near midline"
    return f"{'right' if right_mm > 0 else 'left'}, {abs(right_mm):.0f} mm"
