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

from petground.pipeline.deid.actions import STANDARD
from petground.pipeline.deid.dicom import METHODS
from petground.pipeline.deid.profile import Profile
from petground.pipeline.files import write_bytes, write_json

__all__ = ["Tally", "write_report"]

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
    """Counts by exam (new id), source (report, header, dicom, file), what and how."""

    counts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    read_otherwise: int = 0

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
        self.written.update(images["written"])

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
