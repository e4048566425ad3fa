"""The review page of one exam and the index of all: one HTML file each, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from petground.labeling.site import Site
from petground.pipeline.decided import COLUMNS, DECISIONS, RETRACT, Row, time_in, time_of
from petground.pipeline.review.decisions import label_hash
from petground.pipeline.review.judge import alarms, describe, provenance, side_of, site_slice, title
from petground.pipeline.review.load import Case, Item, reason_text
from petground.pipeline.review.marks import Piece, mark_sentences
from petground.pipeline.review.panels import CT_WINDOW_HU, SUV_CEILING, Viewer
from petground.pipeline.review.views import Album, axial_row, detail_row, projections

__all__ = ["Stamp", "file_name", "render_case", "render_index", "render_mentions"]

FOLDER = Path(__file__).parent
PAGE_BYTES = 3_000_000
QUALITIES = (
    (1.0, 82),
    (1.4, 74),
    (2.0, 65),
    (3.0, 55),
)  # CT pixel [mm] and JPEG quality, until the page is small enough
WINDOWS = (5, 7, 10, 15, 20, 40)
CAPTIONS = {
    "accept": "Accept",
    "adjust": "Adjust outline",
    "wrong_lesion": "Wrong lesion",
    "not_lesion": "Not a lesion",
    "unsure": "Unsure",
}
SHOWN_CANDIDATES = 3
RESERVED = {"index", "decisions"}  # the pack's own files
TALL = 1.7  # projections higher than this stand side by side, not one above the other


@dataclass(frozen=True)
class Stamp:
    """What every page of an export bears. key: where browsers keep decisions; it must differ between work folders."""

    version: str
    exported: str
    key: str


def render_case(case: Case, site: Site, stamp: Stamp, kept: Sequence[Row] = ()) -> str:
    """The page of one exam as HTML, below 3 MB for any usual number of findings.

    kept: events of WORK/decisions.csv on this exam, so that every browser shows what others decided.
    """
    keep = np.zeros(case.pet.shape, dtype=bool)
    for item in case.items:
        if item.mask is not None:
            keep |= item.mask.array > 0
    viewer = Viewer(case.pet, case.ct, keep)
    facts = [f"{case.pet.shape[2]} slices", None if case.ct else "no CT"]
    pieces = mark_sentences([item.finding for item in case.items])
    text = ""
    for pixel_mm, quality in QUALITIES:
        album = Album(viewer, pixel_mm, quality)
        items = [_item(case, item, album, site, pieces[item.finding_id]) for item in case.items]
        text = _fill(case.exam, case.excluded, stamp, items=items, images=album.images, facts=facts, kept=kept)
        if len(text) < PAGE_BYTES:
            break
    return text


def render_mentions(exam: Mapping[str, Any], excluded: Sequence[Mapping[str, Any]], stamp: Stamp) -> str:
    """The page of an exam without anything to judge: its mentions and why none became a label."""
    return _fill(exam, excluded, stamp, items=[], images={}, facts=[])


def render_index(rows: Sequence[Mapping[str, Any]], *, version: str, exported: str, served: bool = False) -> str:
    """The list of exams, rows as of `pack.exam_entry`. served: no page was made yet to count warnings on."""
    names = ("findings", "labels", "alarms", "excluded", "asked", "decided", "unsure")
    totals = {name: sum(int(r[name]) for r in rows) for name in names}
    template = _environment().get_template("index.html")
    return template.render(
        css=_asset("page.css"), rows=rows, totals=totals, version=version, exported=exported, served=served
    )


def file_name(exam_id: str) -> str:
    """A file-system-safe name; ids that had to be changed get a hash so that two never share one."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", exam_id).lstrip(".") or "exam"
    return (
        safe
        if safe == exam_id and safe not in RESERVED
        else f"{safe}_{hashlib.sha256(exam_id.encode()).hexdigest()[:8]}"
    )


def _fill(
    exam: Mapping[str, Any],
    excluded: Sequence[Mapping[str, Any]],
    stamp: Stamp,
    *,
    items: list[dict[str, Any]],
    images: Mapping[str, Any],
    facts: list[str | None],
    kept: Sequence[Row] = (),
) -> str:
    exam_id = str(exam["exam_id"])
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    setting = {
        "exam_id": exam_id, "file": file_name(exam_id), "version": stamp.version, "ceiling": SUV_CEILING,
        "key": f"petground.review.1/{stamp.key}/{exam_id}", "columns": COLUMNS, "captions": CAPTIONS,
        "kept": [_event(row) for row in kept],
    }  # fmt: skip
    pieces = mark_sentences(excluded)
    mentions = [
        {**row, "suv": _printed(row), "pieces": pieces[str(row["finding_id"])], "why": reason_text(row.get("reason")),
         "reason": (row.get("reason") or "").replace("_", " ")}
        for row in excluded
    ]  # fmt: skip
    return _environment().get_template("page.html").render(
        exam_id=exam_id, css=_asset("page.css"), script=Markup(script), script_hash=f"sha256-{digest}",
        setting_json=Markup(json.dumps(setting).replace("<", "\\u003c")), ramps=_ramps(10.0), windows=WINDOWS,
        images=images, items=items, excluded=mentions,
        facts=[f for f in (exam.get("tracer"), exam.get("study_date"), *facts) if f],
        exam_facts=[f for f in (exam.get("source"), exam.get("suv_rule"), exam.get("pet_series")) if f],
        version=stamp.version, exported=stamp.exported, ct_window=f"{CT_WINDOW_HU[0]:.0f} to {CT_WINDOW_HU[1]:.0f}",
    )  # fmt: skip


def _item(case: Case, item: Item, album: Album, site: Site, pieces: list[Piece]) -> dict[str, Any]:
    rest = item.candidates[1:] if item.label is not None else item.candidates
    choices = [w for w in DECISIONS if item.label is not None or w in ("adjust", "not_lesion", "unsure")]
    captions = (
        CAPTIONS if item.label is not None else {**CAPTIONS, "adjust": "Needs a label", "not_lesion": "No lesion"}
    )
    return {
        "id": item.finding_id,
        "anchor": f"f-{file_name(item.finding_id)}",
        "hash": label_hash(item.finding, item.mask),
        "title": title(item.finding),
        "section": item.finding.get("section"),
        "uncertain": bool(item.finding.get("uncertain")),
        "label": item.label is not None,
        "pieces": pieces,
        "alarms": alarms(case, item, site),
        "mips": projections(album, item),
        "tall": album.viewer.frame("coronal").height_mm > TALL * album.viewer.frame("coronal").width_mm,
        "rows": _rows(case, item, album, site),
        "candidates": [_candidate(case, item, row) for row in item.candidates] if rest else [],
        "candidates_title": f"{len(item.candidates)} candidates" if item.label is None
        else f"{len(rest)} other candidate{'' if len(rest) == 1 else 's'}",
        "choices": [(w, DECISIONS[w], captions[w], number) for number, w in enumerate(choices, start=1)],
        "provenance": provenance(item),
        **describe(case, item),
    }  # fmt: skip


def _rows(case: Case, item: Item, album: Album, site: Site) -> list[dict[str, Any]]:
    """Reported slice, hottest slice where it is another, and the detail; or the best candidates' slices."""
    rows: list[dict[str, Any]] = []

    def add(head: str, pictures: list[Any]) -> None:
        rows.append({"title": head, "pictures": pictures})

    if item.label is None:
        for row in item.candidates[:SHOWN_CANDIDATES]:
            at = (int(row["voxel_i"]), int(row["voxel_j"]), int(row["voxel_k"]))
            where = f"candidate {int(row['rank']) + 1}, slice {site_slice(case, at[2], site)}"
            add(f"{where[:1].upper()}{where[1:]} · SUV {row['suv']:.1f}", axial_row(album, item, at[2], at, where))
        if not rows and item.reported_k is not None:
            where = f"reported slice {item.finding['slice']}"
            add(where.capitalize(), axial_row(album, item, item.reported_k, None, where))
        return rows
    ijk = item.voxel_ijk
    assert ijk is not None
    hottest = f"slice {site_slice(case, ijk[2], site)}"
    if item.reported_k == ijk[2]:
        add(f"Reported and hottest {hottest}", axial_row(album, item, ijk[2], ijk, hottest))
    else:
        if item.reported_k is not None:
            where = f"reported slice {item.finding['slice']}"
            add(where.capitalize(), axial_row(album, item, item.reported_k, None, where))
        add(f"Hottest voxel, {hottest}", axial_row(album, item, ijk[2], ijk, f"hottest voxel, {hottest}"))
    add(f"Detail around the hottest voxel, {hottest}", detail_row(album, item, ijk, f"detail, {hottest}"))
    return rows


def _candidate(case: Case, item: Item, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": int(row["rank"]) + 1, "suv": f"{row['suv']:.2f}", "distance": row["slice_distance"],
        "side": side_of(case, row), "score": f"{row['score']:.2f}",
        "chosen": item.label is not None and row is item.candidates[0],
    }  # fmt: skip


def _event(row: Row) -> dict[str, Any]:
    """A row of decisions.csv for the page, times in ms: browsers read fewer forms of ISO 8601 than we do."""
    event: dict[str, Any] = {name: row[name] for name in ("finding_id", "decision", "reason", "reviewer", "label_hash")}
    event["at"] = round(time_of(row).timestamp() * 1000)
    if row["decision"] == RETRACT:
        event["back"] = round(time_in(row["reason"]).timestamp() * 1000)
    return event


def _printed(row: Mapping[str, Any]) -> str:
    decimals = row.get("suv_decimals")
    return "–" if row.get("suv") is None else f"{row['suv']:.{1 if decimals is None else decimals}f}"


def _ramps(top: float) -> dict[str, str]:
    """Tables from the stored 8 bits to inverse grey and to the hot scale with its opacity, for SUV 0..top."""
    level = np.minimum(1.0, (np.arange(256) / 255) ** 2 * SUV_CEILING / top)
    ramps = {"grey": 1 - level, "red": 3 * level, "green": 3 * level - 1, "blue": 3 * level - 2,
             "alpha": np.minimum(0.85, 1.6 * np.sqrt(level) - 0.3)}  # fmt: skip
    return {name: " ".join(f"{v:.3f}" for v in np.clip(ramp, 0, 1)) for name, ramp in ramps.items()}


def _asset(name: str) -> Markup:
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
