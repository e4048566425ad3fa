"""`petground second-reading`: a local language model reads the same sentences, for a consensus with the grammar."""

from __future__ import annotations

import itertools
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.second_reading import SYSTEM, Asked, pairs_of, questions
from petground.pipeline.progress import progress
from petground.pipeline.reports import Report, open_export
from petground.pipeline.schemas import write_table
from petground.pipeline.second_readings import report_hash
from petground.pipeline.stage import content_hash, run_stage, source_hash, sweep

__all__ = ["second_reading"]

SHARD = 20  # reports per kept result: what a stopped run loses at most
CODE = ("petground.labeling.second_reading", "petground.labeling.language", "petground.models.text.instruct")
TABLE = "second_reading.parquet"


def second_reading(
    reports: Path,
    out: Path,
    model: str,
    revision: str | None = None,
    device: str = "cpu",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    batch_size: int = 8,
    max_new_tokens: int = 160,
    offline: bool = False,
    dry_run: bool = False,
) -> int:
    """Let a local instruct model read every sentence with an SUV; writes OUT/second_reading.parquet.

    `petground label --second-reading OUT/second_reading.parquet` then keeps only the pairs of SUV and slice on which
    grammar and model agree. The model answers in JSON that can only hold numbers of the sentence; no text leaves this
    machine. Run again after an interruption: shards that are finished are kept. Nothing runs it unasked: a sentence
    costs a model seconds on a CPU.

    Args:
        reports: the export that `petground label` reads.
        out: folder for the result; the WORK folder of the labels will do.
        model: Hugging Face name or folder of an instruct model, such as Qwen/Qwen2.5-7B-Instruct.
        revision: branch, tag or commit of the model on the hub.
        device: cpu, cuda, cuda:1 ...
        dtype: precision of the weights; auto as they were saved.
        batch_size: sentences at once.
        max_new_tokens: an answer longer than this counts as none.
        offline: never ask the hub: the model must lie on this machine.
        dry_run: only count the sentences that would be read.
    """
    console = Console()
    for name, value in (("--batch-size", batch_size), ("--max-new-tokens", max_new_tokens)):
        if value < 1:
            raise ConfigError(f"{name} is {value}", fix="give 1 or more")
    export = open_export(reports)
    usable = (r for r in export if r.problem is None)
    if dry_run:
        count = sum(len(questions(report.text)) for report in usable)
        console.print(f"{count} sentences of {export.rows - export.unusable} reports would be read by {model}")
        return 0
    settings = {"name": model, "revision": revision, "dtype": dtype, "device": device, "batch_size": batch_size}
    settings |= {"max_new_tokens": max_new_tokens, "local_files_only": offline}
    reader = _load(settings)
    work = out / "second_reading"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".second_reading.lock", timeout=0), progress(console) as tick:
            sweep(work)
            rows: list[dict[str, Any]] = []
            unanswered = 0
            total, done = export.rows - export.unusable, 0
            for shard in _shards(usable):
                read = _read_shard(work, shard, reader, settings)
                rows += read
                done += len(shard)
                unanswered += sum(not row["answered"] for row in read)
                tick("reports", done, total)
            write_table(out / TABLE, "second_reading", rows)
    except Timeout:
        raise InputError(f"another run is writing to {out}", fix="wait for it, or choose another --out") from None
    asked = len({(row["exam_id"], row["sentence_start"]) for row in rows})
    pairs = sum("suv" in row for row in rows)
    console.print(
        f"[bold]{asked} sentences read[/bold], {pairs} pairs of SUV and slice, {unanswered} without an answer"
    )
    console.print(f"table: {out / TABLE}", highlight=False)
    return 0


def _load(settings: Mapping[str, Any]) -> Any:
    """The model's reader; networks are no business of this room, so it comes by name."""
    module = "petground.models.text.instruct"
    error = pkgutil.resolve_name(f"{module}:InstructError")
    try:
        return pkgutil.resolve_name(f"{module}:Instruct")(pkgutil.resolve_name(f"{module}:InstructConfig")(**settings))
    except error as problem:
        raise ConfigError(str(problem), fix="give --model another name or folder") from problem


def _shards(reports: Iterable[Report]) -> Iterator[list[Report]]:
    source = iter(reports)
    while shard := list(itertools.islice(source, SHARD)):
        yield shard


def _read_shard(work: Path, shard: list[Report], reader: Any, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one shard, made or found. Sentences are asked for together, so that batches are full."""
    same = {name: settings[name] for name in ("name", "dtype", "max_new_tokens")}  # the others change no answer
    key = content_hash(
        ["second_reading", source_hash(*CODE), same, reader.revision, [[r.exam_id, r.text] for r in shard]]
    )

    def read(part: Path) -> dict[str, Any]:
        question = pkgutil.resolve_name("petground.models.text.instruct:Question")
        asked: list[tuple[Report, Asked]] = [(report, one) for report in shard for one in questions(report.text)]
        answers = reader.answers([question(SYSTEM, one.user, one.schema) for _, one in asked])
        rows = []
        for (report, one), answer in zip(asked, answers, strict=True):
            pairs = pairs_of(answer)
            about = {
                "exam_id": report.exam_id,
                "report_hash": report_hash(report.text),
                "sentence_start": one.span[0],
                "sentence_end": one.span[1],
                "answered": pairs is not None,
                "model": settings["name"],
                "revision": reader.revision,
            }
            rows += [about | {"suv": suv, "slice": number} for suv, number in pairs or ()]
            if not pairs:
                rows.append(about)
        return {"rows": rows}

    rows: list[dict[str, Any]] = run_stage(work / key, key, read)[0]["rows"]
    return rows
