"""Sentences per second on one core: the report pipeline of petground, and medspaCy's, on the same text.

medspaCy pins an older spaCy, so it runs from an environment of its own:

    python -m venv /tmp/medspacy && /tmp/medspacy/bin/pip install medspacy
    MEDSPACY_PYTHON=/tmp/medspacy/bin/python python benchmarks/run.py medspacy_speed

A third side, in the same run, is the compiled reader (`make compiled`) where PETGROUND_COMPILED_AT names its folder:

    pip install --no-deps --target /tmp/compiled dist/compiled/petground-*.whl
    PETGROUND_COMPILED_AT=/tmp/compiled MEDSPACY_PYTHON=... python benchmarks/run.py medspacy_speed

What each does on every report. petground: sections, sentences, and on the sentences within reach of an SUV word
tokens, mentions of SUV, slice, size and date, context cues, anatomy, and from these one finding per SUV with slice,
side, place, time and fate; the sentences that tell of no SUV are split off and passed over. medspaCy: tokens, sentences
(PyRuSH), target words (the same anatomy phrases and an SUV pattern, given as TargetRules), context of each target
(ConText, its own rules), sections, everywhere; it does not tie values to slices. Its debug logging (loguru, several
lines per target) is off. Each side runs alone, in processes of its own that take turns, with one thread, takes the best
of three times five passes, and counts its CPU time over the same number of sentences: those that petground's splitter
finds. Neither side keeps what it read of a sentence for the next time that it comes; both have read one report before
the clock starts.

Two texts: phantom reports, of which a quarter of the sentences give an SUV, and the annotated reports where they are at
hand (see `gold`), of which half do. The more sentences give one, the more petground has to do for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPORTS = 60
SEED = 77
ROUNDS = 3  # processes of each side, of which the quickest counts
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def measure() -> dict[str, Any] | None:
    """Both rates and their ratio for each text; None where MEDSPACY_PYTHON names no interpreter with medspaCy."""
    peer = os.environ.get("MEDSPACY_PYTHON", "")
    if not peer or not Path(peer).is_file():
        return None
    texts = {"phantom reports": _phantom_reports(), "annotated reports": _annotated_reports()}
    return {name: _compare(reports, peer) for name, reports in texts.items() if reports}


def _phantom_reports() -> list[str]:
    import numpy as np

    from petground.pipeline.phantom.exam import make_exam
    from petground.pipeline.phantom.reports import write_report

    rng = np.random.default_rng(SEED)
    texts = []
    for index in range(REPORTS // 5):  # the exam takes a second, a report of it no time: five houses tell of each
        exam = make_exam(SEED, index)
        texts += [write_report(exam, rng).text for _ in range(5)]
    return texts


def _annotated_reports() -> list[str]:
    shared = Path(os.environ.get("PETGROUND_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    file = shared / "gold" / "reports_dev.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line)["text"] for line in lines]


def _compare(texts: list[str], peer: str) -> dict[str, Any]:
    from petground.labeling.extract import extract_findings
    from petground.labeling.language.sentences import find_sentences

    sentences = sum(len(find_sentences(text)) for text in texts)
    with_suv = sum(len({f.sentence_span for f in extract_findings(text)}) for text in texts)
    sides: dict[str, Any] = {}
    compiled = os.environ.get("PETGROUND_COMPILED_AT", "")
    runs = [("petground", sys.executable, {}), ("medspacy", peer, {})]
    if compiled:
        runs.insert(1, ("petground_compiled", sys.executable, {"PYTHONPATH": compiled}))
    for name, interpreter, place in runs * ROUNDS:  # in turn: a machine is not equally quick from minute to minute
        job = json.dumps({"side": name, "texts": texts, "targets": _anatomy_phrases()})
        done = subprocess.run(
            [interpreter, __file__],
            input=job,
            capture_output=True,
            text=True,
            env=os.environ | ENVIRONMENT | place,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        sides[name] = min(told, sides.get(name, told), key=lambda side: float(side["seconds"]))
    if compiled and not sides["petground_compiled"]["compiled"]:
        sys.exit(
            f"PETGROUND_COMPILED_AT: {compiled} holds no compiled reader for this interpreter; run `make compiled`"
        )
    rate = {name: sentences / side["seconds"] for name, side in sides.items()}
    ratio = {name: round(value / rate["medspacy"], 1) for name, value in rate.items() if name != "medspacy"}
    figures = {
        "reports": len(texts),
        "sentences": sentences,
        "sentences_with_suv": with_suv,
        "sentences_per_second": {name: round(value, 1) for name, value in rate.items()},
        "versions": {name: side["version"] for name, side in sides.items()},
        "found": {name: side["found"] for name, side in sides.items()},
        "compiled": sides["petground"]["compiled"],
        "ratio": ratio["petground"],
    }
    return figures | ({"ratio_compiled": ratio["petground_compiled"]} if compiled else {})


def _anatomy_phrases() -> list[str]:
    from petground.labeling.language.lexicon import load_rules, phrases_of

    kinds = ("site", "sided")
    return sorted({p.lower() for rule in load_rules("anatomy") if rule["kind"] in kinds for p in phrases_of(rule)})


def _best(read: Any, texts: list[str]) -> tuple[float, int]:
    read(texts[0])
    best, found = float("inf"), 0
    for _ in range(5):
        start = time.process_time()
        found = sum(read(text) for text in texts)
        best = min(best, time.process_time() - start)
    return best, found


def _petground(job: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from petground.labeling.extract import extract_findings
    from petground.labeling.language import discourse

    seconds, found = _best(lambda text: len(extract_findings(text)), job["texts"])
    compiled = not str(discourse.__file__).endswith(".py")
    return {"seconds": seconds, "version": version("petground"), "found": f"{found} findings", "compiled": compiled}


def _medspacy(job: dict[str, Any]) -> dict[str, Any]:
    from importlib.metadata import version

    from loguru import logger

    logger.remove()  # otherwise its debug lines would be most of the time
    logger.disable("medspacy")
    logger.disable("PyRuSH")
    import medspacy
    from medspacy.target_matcher import TargetRule

    pipes = ["medspacy_pyrush", "medspacy_target_matcher", "medspacy_context", "medspacy_sectionizer"]
    nlp = medspacy.load(medspacy_enable=pipes)
    matcher = nlp.get_pipe("medspacy_target_matcher")
    matcher.add([TargetRule(phrase, "SITE") for phrase in job["targets"]])
    pattern = [{"LOWER": {"REGEX": r"^suv"}}, {"OP": "?"}, {"LIKE_NUM": True}]
    matcher.add([TargetRule("SUV", "SUV", pattern=pattern)])
    seconds, found = _best(lambda text: len(nlp(text).ents), job["texts"])
    return {"seconds": seconds, "version": version("medspacy"), "found": f"{found} targets"}


SIDES = {"petground": _petground, "petground_compiled": _petground, "medspacy": _medspacy}

if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(SIDES[given["side"]](given)) + "\n")
