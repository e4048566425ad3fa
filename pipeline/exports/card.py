"""The data card of a release: DATA_CARD.md and card.json with plots, and no word of a report or id of a patient."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petground.pipeline.exports.card_data import FEW, STAGES, card_data
from petground.pipeline.exports.card_plots import PLOTS, draw
from petground.pipeline.exports.duplicates import Duplicate
from petground.pipeline.exports.hugging_face import front_matter
from petground.pipeline.exports.layout import Release
from petground.pipeline.exports.select import Selection
from petground.pipeline.exports.strata import PARTS, Partition
from petground.pipeline.files import write_bytes, write_json

__all__ = ["markdown", "write_card"]


def write_card(
    work: Path,
    release: Release,
    selection: Selection,
    partition: Partition,
    duplicates: Sequence[Duplicate],
    failures: Mapping[str, str],
) -> None:
    """Writes card.json, card/*.png and DATA_CARD.md into the release; README.md too for Hugging Face."""
    data = card_data(work, release, selection, partition, duplicates, failures)
    write_json(release.root / "card.json", data)
    for name, png in draw(data).items():
        write_bytes(release.root / "card" / name, png)
    text = markdown(data)
    write_bytes(release.root / "DATA_CARD.md", text.encode())
    if release.options.to == "huggingface":
        write_bytes(release.root / "README.md", (front_matter(release) + "\n" + text).encode())


def markdown(data: Mapping[str, Any]) -> str:
    """The card as a page."""
    options = data["options"]
    spacing = options["spacing_xyz_mm"]
    grid = "the CT's grid" if options["ct_grid"] else "the PET's grid"
    if spacing:
        grid = f"{' x '.join(f'{mm:g}' for mm in spacing)} mm along the patient's axes"
    lines = [
        "# Data card",
        "",
        f"PET/CT exams with 3D lesion masks grown from their reports by petground {data['petground']}, exported to "
        f"`{data['format']}`. Research use only. Licence: **{data['licence']}**.",
        "",
        f"Counts from 1 to 4 are shown as {FEW}; no id, no date but the year, no word of a report is on this card.",
        "",
        "## What is in it",
        "",
        *_pairs(data["counts"]),
        "",
        f"Images lie on {grid}; PET in SUVbw [g/ml], CT in HU (-1024 outside of the scan). Nothing is mirrored: left "
        "and right are the patient's.",
        "",
        "![Composition](card/composition.png)",
        "",
        "## From mention to label",
        "",
        *_table(
            ("stage", "fate", "meaning", "mentions"),
            [(STAGES[row["stage"]], row["fate"], row["meaning"], row["count"]) for row in data["fates"]],
        ),
        "",
        "![What became of every mention](card/fates.png)",
        "",
        "## Lesions",
        "",
        *_table(
            ("", "lower quartile", "median", "upper quartile"),
            [
                (one["title"], *(_told(one[q]) for q in ("lower_quartile", "median", "upper_quartile")))
                for one in data["distributions"].values()
            ],
        ),
        "",
        "![SUVmax, volume and confidence](card/distributions.png)",
        "",
    ]
    for title, groups in (("Labels by", data["labels_by"]), ("Exams by", data["exams_by"])):
        for name, counts in groups.items():
            lines += [f"### {title} {name}", "", *_pairs(counts), ""]
    shares = " / ".join(f"{100 * share:g} % {part}" for part, share in options["shares"].items())
    lines += [
        "## Split",
        "",
        f"By patient, {shares}, seed {options['seed']}; balanced by tracer, region, number of lesions and volume. "
        "Patients with an exam that looks like another's are kept in one part. The table counts patients.",
        "",
        *_table(("trait", *PARTS), [tuple(row[key] for key in ("trait", *PARTS)) for row in data["split_in_patients"]]),
        "",
        "![Split](card/splits.png)",
        "",
        "## Exams filed twice",
        "",
        *_pairs(
            {k: v for k, v in data["duplicates"].items() if k != "by evidence"} | data["duplicates"]["by evidence"]
        ),
        "",
        "## How it was made",
        "",
        *_pairs({name: f"`{value}`" for name, value in data["made_by"].items()}),
        "",
        *_pairs({f"sha256 of {name}": f"`{value}`" for name, value in data["tables_sha256"].items()}),
        "",
        "Options: `" + json.dumps({k: v for k, v in options.items() if v is not None}, sort_keys=True) + "`",
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in data["limits"]),
        "",
    ]
    if data["failed_exams"]:
        lines += ["## Exams that failed", "", *_pairs(data["failed_exams"]), ""]
    return "\n".join(lines)


def _pairs(counts: Mapping[str, Any]) -> list[str]:
    return _table(("", ""), [one for one in counts.items() if one[1] is not None]) if counts else ["none"]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    body = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]


def _told(value: float | None) -> str:
    return "too few" if value is None else f"{value:g}"


if missing := {"composition.png", "fates.png", "distributions.png", "splits.png"} - set(PLOTS):
    raise RuntimeError(f"the card shows plots that nobody draws: {missing}")
