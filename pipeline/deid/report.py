"""What was removed, counted: a Parquet table, a JSON summary and a page. No original value is in any of them."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from petground.labeling.errors import InputError
from petground.pipeline.deid.actions import STANDARD
from petground.pipeline.deid.dicom import METHODS
from petground.pipeline.deid.profile import Profile
from petground.pipeline.files import write_bytes, write_json

__all__ = ["Tally", "account_of_images", "write_report"]

SCHEMA = pa.schema(
    [
        ("exam_id", pa.string()),
        ("source", pa.string()),
        ("what", pa.string()),
        ("how", pa.string()),
        ("count", pa.int64()),
    ]
)
LEFT_OUT = {
    "secondary_capture": "secondary captures: screen shots, scans of paper",
    "screen_capture": "images that software drew: screen saves, protocol and dose pages",
    "dose_report": "dose reports",
    "structured_report": "structured reports",
    "document": "encapsulated documents",
    "presentation_state": "presentation states",
    "raw_data": "raw data",
    "photograph_or_video": "photographs and videos",
    "ultrasound": "ultrasound images",
    "other_object": "other objects",
    "burned_in_annotation": "images whose header says that identities are burned in",
    "colour_image": "colour images",
    "overlay_in_pixels": "images with overlays in unused bits of their pixels",
    "text_in_pixels": "derived images in whose pixels text was found",
    "undecodable_derived_image": "derived images that could not be looked at",
    "segmentation": "segmentations (the profile asks for it)",
    "index": "DICOMDIR files",
    "other_file": "files that are not DICOM",
}


@dataclass
class Tally:
    """Counts by exam (new id), source (report, header, dicom, file, image), what and how.

    kept: exams whose images an earlier run wrote.
    """

    counts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    read_otherwise: int = 0
    kept: int = 0

    def text(self, exam: str, found: list[list[Any]]) -> None:
        """kind, rule, count of a report's replacements."""
        for kind, rule, count in found:
            self.counts[exam, "report", kind, rule] += count

    def header(self, exam: str, unread: list[str]) -> None:
        """Attributes whose value was damaged: they name someone whom the report was not searched for."""
        for keyword in unread:
            self.counts[exam, "header", keyword, "damaged, not sought in the report"] += 1

    def images(self, exam: str, images: dict[str, Any]) -> None:
        """Changed attributes, files left out and written of an exam."""
        for name, action, count in images["changed"]:
            self.counts[exam, "dicom", name, action] += count
        for reason, count in images["left"].items():
            self.counts[exam, "file", reason, "left out"] += count
        for what, count in images["written"].items():
            self.counts[exam, "image", what, "written"] += count
        self.written.update(images["written"])

    def earlier(self, rows: list[dict[str, Any]]) -> None:
        """Images that an earlier run wrote and that stay: rows of `account_of_images`."""
        for row in rows:
            self.counts[row["exam_id"], row["source"], row["what"], row["how"]] += row["count"]
            if row["source"] == "image":
                self.written[row["what"]] += row["count"]
        self.kept = len({row["exam_id"] for row in rows if row["source"] == "image"})

    def fail(self, exam: str, reason: str) -> None:
        """An exam that could not be cleaned, or not its images."""
        self.failed[exam] = reason

    def total(self, source: str) -> list[tuple[str, str, int, int]]:
        """what, how, count, exams concerned; over all exams, most frequent first."""
        sums: Counter[tuple[str, str]] = Counter()
        exams: Counter[tuple[str, str]] = Counter()
        for (_, where, what, how), count in self.counts.items():
            if where == source:
                sums[what, how] += count
                exams[what, how] += 1
        return [
            (*pair, count, exams[pair]) for pair, count in sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        ]


def account_of_images(out: Path) -> list[dict[str, Any]]:
    """Rows of OUT/removed.parquet on the images that lie in OUT/exams; of those of no report's text.

    Raises InputError where images lie there of which no row tells that they were written.
    """
    there = {folder.name for folder in (out / "exams").iterdir() if any(p.is_file() for p in folder.rglob("*"))}
    path = out / "removed.parquet"
    rows = pq.read_table(path, schema=SCHEMA).to_pylist() if there and path.is_file() else []
    kept = [row for row in rows if row["exam_id"] in there and row["source"] != "report"]
    if unknown := there - {row["exam_id"] for row in kept if row["source"] == "image"}:
        raise InputError(
            f"{len(unknown)} exams in {out / 'exams'} have no account in removed.parquet of what was removed from them",
            fix="give --exams as well, or another --out for the reports alone",
        )
    return kept


def write_report(out: Path, tally: Tally, profile: Profile, *, exams: int) -> dict[str, Any]:
    """Writes OUT/removed.parquet, removed.json and removed.html; returns the summary."""
    rows = [dict(zip(SCHEMA.names, (*key, count), strict=True)) for key, count in sorted(tally.counts.items())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink)
    write_bytes(out / "removed.parquet", sink.getvalue().to_pybytes())
    kinds: Counter[str] = Counter()
    for (_, source, what, _), count in tally.counts.items():
        if source == "report":
            kinds[what] += count
    summary = {
        "petground": importlib.metadata.version("petground"),
        "standard": STANDARD,
        "options": [{"code": code, "meaning": meaning} for code, meaning in METHODS],
        "date_order": profile.date_order,
        "exams": exams,
        "failed": dict(sorted(Counter(tally.failed.values()).items())),
        "exams_with_images_of_an_earlier_run": tally.kept,
        "files_written": dict(sorted(tally.written.items())),
        "reports_whose_findings_changed": tally.read_otherwise,
        "header_values_not_sought": {what: count for what, _, count, _ in tally.total("header")},
        "text": dict(kinds.most_common()),
        "text_rules": _listed(tally.total("report")),
        "files_left_out": {what: count for what, _, count, _ in tally.total("file")},
        "attributes": _listed(tally.total("dicom")),
    }
    write_json(out / "removed.json", summary)
    write_bytes(out / "removed.html", _page(summary, tally).encode())
    return summary


def _listed(total: list[tuple[str, str, int, int]]) -> list[dict[str, Any]]:
    return [{"what": what, "how": how, "count": count, "exams": exams} for what, how, count, exams in total]


def _page(summary: dict[str, Any], tally: Tally) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("petground.pipeline.deid").joinpath("removed.html").read_text("utf-8"))
    actions: dict[str, list[tuple[str, int, int]]] = {}
    for what, how, count, exams in tally.total("dicom"):
        actions.setdefault(how, []).append((what, count, exams))
    return template.render(summary=summary, actions=actions, left=LEFT_OUT, failed=sorted(tally.failed.items()))
