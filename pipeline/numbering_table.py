"""What `--infer-numbering` found, for people: a table of candidates per scanner and time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from petground.labeling.site import Site
from petground.pipeline.numbering_run import INFERRED_SITE, NUMBERING

__all__ = ["describe_numbering", "show_numbering"]

MOST_CANDIDATES = 4  # numbering.json holds them all
MOST_GROUPS = 20


def show_numbering(console: Console, found: Mapping[str, Any], out: Path) -> None:
    """Prints the evidence of numbering.json (`found`): what was chosen, what else was tried, and what is not clear."""
    groups = found["groups"][:MOST_GROUPS]
    if not groups or found["refused"] or len(groups) == 1:
        groups = [{"name": "all exams", "exams": found["exams"], **found["whole"]}]
    for group in groups:
        chosen = group["convention"]
        title = f"Slices of {group['name']} ({group['exams']} exams): "
        title += f"counted {chosen}" if chosen else f"not clear, {group['why_not']}"
        _print(console, group, title)
        for note in group["notes"]:
            console.print(f"  note: {note}", highlight=False, markup=False)
    if len(found["groups"]) > MOST_GROUPS:
        console.print(f"  and {len(found['groups']) - MOST_GROUPS} groups more in {out / NUMBERING}", highlight=False)
    if not found["refused"]:
        console.print(f"written: {out / INFERRED_SITE}, evidence in {out / NUMBERING}", highlight=False, markup=False)


def describe_numbering(site: Site) -> list[str]:
    """How the site counts, a line for each of its groups and one for all others."""
    lines = []
    for group in site.groups:
        time = "".join(f" {word} {day}" for word, day in (("from", group.since), ("until", group.until)) if day)
        name = "any scanner" if group.scanner is None else group.scanner or "scanner not known"
        own = Site(**{**_plain(site), **group.changes})
        lines.append(f"{name}{time}: {_counted(own)}")
    return [*lines, f"all others: {_counted(site)}"] if lines else [_counted(site)]


def _plain(site: Site) -> dict[str, Any]:
    return {name: value for name, value in vars(site).items() if name != "groups"}


def _counted(site: Site) -> str:
    grid = site.slice_grid.upper()
    if not site.numbering_known:
        return "not known how slices are counted, nothing is labelled"
    if site.slice_by_instance_number:
        return f"slices are the InstanceNumber of the {grid}"
    return f"slices counted from the {site.slice_origin}, from {site.slice_first}, on the {grid} grid"


def _print(console: Console, group: Mapping[str, Any], title: str) -> None:
    if not group["candidates"]:
        console.print(title, style="bold yellow", highlight=False, markup=False)
        return
    table = Table(title=title, title_justify="left", title_style="bold" if group["convention"] else "bold yellow")
    table.caption = "met: the printed value is a maximum on the slice; evidence: powers of ten against chance"
    table.caption_justify = "left"
    table.add_column("slices counted")
    for column in ("findings", "met", "by chance", "evidence"):
        table.add_column(column, justify="right")
    for row in group["candidates"][:MOST_CANDIDATES]:
        same = [f"= {other}" for other in row["same_slices"]]
        numbers = (row["findings"], row["met"], f"{row['by_chance']:.1f}", f"{row['evidence_log10']:+.1f}")
        table.add_row("\n  ".join([row["convention"], *same]), *map(str, numbers))
    console.print(table)
