"""`petground ground`: a sentence or a whole report on one exam, a mask per sentence."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from petground.labeling.errors import ConfigError, InputError
from petground.labeling.site import Site
from petground.labeling.suv_header import SuvFallbacks
from petground.pipeline.commands.label import read_site
from petground.pipeline.files import write_csv, write_json
from petground.pipeline.ground_by import Asked, Peer, chosen
from petground.pipeline.ground_checks import fingerprint
from petground.pipeline.ground_out import NO_WORDS, as_finding, dicom_objects, owned, show, write_answer
from petground.pipeline.ground_pictures import overview_picture
from petground.pipeline.peers.voxtell import ImageKind
from petground.pipeline.pictures import write_png
from petground.pipeline.progress import progress
from petground.pipeline.read import read_exam
from petground.pipeline.redraw import Redraw
from petground.pipeline.report_files import OPTIONAL, REQUIRED
from petground.pipeline.usage import TABLES

__all__ = ["ground"]

COLUMNS = {*REQUIRED, *OPTIONAL, "accession", "accession_number", "exam", "report", "text", "mrn"}


def ground(
    exam: Path,
    checkpoint: Path | None,
    out: Path,
    text: str | None = None,
    report: Path | None = None,
    site: Path | None = None,
    weight_kg: float | None = None,
    device: str = "auto",
    slice_margin_mm: float | None = None,
    peer: Peer | None = None,
    peer_python: Path | None = None,
    peer_model: Path | None = None,
    peer_image: ImageKind | None = None,
    outline: Redraw = "auto",
) -> int:
    """Find on one exam what a sentence, or every positive sentence of a report, speaks of.

    Writes OUT/<finding>.nii.gz (a mask on the PET grid) and a picture for each sentence, overview.png, findings.json
    and findings.csv; for an exam in DICOM also seg.dcm, sr.dcm and rwvm.dcm. A sentence whose lesion the model does not
    see gets an empty mask, and is told so; a mask that lies on the other side than the sentence says is told, and SEG
    and SR name no side for it; a sentence of nothing but numbers is not asked of the model (exit code 3).
    A PET that cannot be had in SUVbw is refused.

    Who answers is a checkpoint of `petground train`, or with --peer voxtell the model of that name (arXiv 2511.11450),
    which lives in an environment of its own: `python -m venv voxtell; voxtell/bin/pip install voxtell`. It reads one
    image, PET or CT, and the words, and fetches its weights and its language model from the Hugging Face hub once.

    Args:
        exam: folder with DICOM in any nesting, or pet.nii.gz [SUVbw] and ct.nii.gz [HU].
        checkpoint: a .ckpt file of `petground train`; needed unless a peer is asked.
        out: folder for masks, pictures and tables.
        text: one sentence about one thing; its SUV and slice, if any, are not shown to the model, unless it was trained
            with them. The mask is held against the side that it names; where it names lesions on both, against none.
        report: a text file with one whole report; its current lesions with SUVmax and slice are grounded.
        site: YAML with the site's conventions (how slices are counted); default: from the head, from 1.
        weight_kg: the patient's weight, where the DICOM header has none.
        device: auto, cpu, cuda or mps.
        slice_margin_mm: of a model that slides over the exam: leave out what lies further than this above and below the
            reported slice; default: 50 when the model was trained with slices told, else the whole exam is searched.
        peer: ask this model instead of a checkpoint.
        peer_python: the Python of the environment that the peer is installed in; default: this one.
        peer_model: folder of the peer's model (plans.json and fold_0/checkpoint_final.pth, which is unpickled: take it
            from who you trust); default: $VOXTELL_MODEL, else what the peer fetches.
        peer_image: what the peer reads: pet [SUVbw] (default) or ct [HU].
        outline: model: the mask as the model gives it; pet: drawn anew on the PET around the uptake that the model
            marks, by the rules of labels; auto: pet where the model's voxels are twice the PET's or larger.
    """
    console = Console()
    convention = read_site(site)
    asked = _asked(text, report, convention)
    if not exam.exists():
        raise InputError(f"no exam at {exam}", fix="give a folder with DICOM, or with pet.nii.gz and ct.nii.gz")
    if exam.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"answers in {out} would lie among the images of {exam.name}", fix="choose another --out")
    by = chosen(peer, checkpoint, device, slice_margin_mm, (peer_python, peer_model, peer_image), outline)
    who = "the model" if peer is None else peer
    asked = by.told(asked)
    images = read_exam(exam, case=exam.name, fallbacks=SuvFallbacks(weight_kg, convention.half_life_from_code))
    askable = [one for one in asked if one.has_words]
    with owned(out) as part:
        rows, shown, found = [], [], []
        masks: dict[bytes, str] = {}  # by whom
        with progress(console) as tick:
            answers = by.answers(images.pet, images.ct, convention, askable, exam.name, tick)
            for done, one in enumerate(asked, start=1):
                answer = next(answers) if one.has_words else None
                mark = None if answer is None else fingerprint(answer)
                same_as = None if mark is None else masks.get(mark)
                if mark is not None:
                    masks.setdefault(mark, one.finding_id)
                row, picture = write_answer(part, one, answer, images, convention, same_as, by.surety)
                rows.append(row)
                shown += [] if picture is None else [picture]
                if images.source == "dicom" and row["found"]:
                    found.append(as_finding(one, answer, images, by.named, refuted=bool(row["not_as_reported"])))
                tick("sentences", done, len(asked))
        write_png(part / "overview.png", overview_picture(images.pet, shown))
        write_csv(part / "findings.csv", rows)
        unseen = by.not_looked_at(images.pet, images.ct, convention)
        dicom = dicom_objects(part, exam, images, found)
        write_json(
            part / "findings.json",
            {
                "exam": exam.name,
                "source": images.source,
                "suv_rule": images.suv_rule,
                "series": images.pet_series,
                "ct_read": images.ct is not None,
                "ct_series": images.ct_series,
                **by.facts,
                "not_looked_at": unseen,
                "dicom": dicom,
                "findings": rows,
            },
        )
    if images.ct is None and peer is None:  # a peer reads one image
        why = f": {images.ct_series}" if images.ct_series else ""
        console.print(
            f"no CT was read{why}; the model saw the PET alone.", style="yellow", markup=False, soft_wrap=True
        )
    show(console, out, rows, unseen, dicom, who, by.surety)
    return 0 if len(askable) == len(asked) and dicom["problem"] is None else 3


def _asked(text: str | None, report: Path | None, site: Site) -> list[Asked]:
    """What is to be grounded, from a sentence or from a report's positive findings."""
    from petground.labeling.extract import extract_findings
    from petground.labeling.language import make_prompt
    from petground.labeling.language.asked import read_asked
    from petground.labeling.language.denials import find_denials

    if (text is None) == (report is None):
        raise ConfigError("one of --text and --report is needed, not both", fix='--text "..." or --report FILE')
    if text is not None:
        if not text.strip():
            raise ConfigError("--text is empty", fix="give the sentence to ground")
        said = read_asked(text, extract_findings(text, site=site))
        values = (said.suv, said.slice, said.site, said.laterality, said.series)
        one = Asked("f001", text.strip(), make_prompt(text), *values, denied=bool(find_denials(text)))
        if not one.has_words:
            raise InputError(f"--text: {NO_WORDS}", fix="say in words what lies where")
        return [one]
    assert report is not None
    findings = [
        (f"f{number:03d}", finding)
        for number, finding in enumerate(extract_findings(_read_report(report), site=site), start=1)
        if finding.status == "positive"
    ]
    if not findings:
        raise InputError(
            "the report states no current lesion with SUVmax and slice",
            case=report.name,
            fix="try --text with a sentence",
        )
    asked = [Asked(name, f.sentence, f.prompt, f.suv, f.slice, f.site, f.laterality, f.series) for name, f in findings]
    if not any(one.has_words for one in asked):
        raise InputError(f"{NO_WORDS}, in each of {len(asked)}", case=report.name, fix="try --text with a sentence")
    return asked


def _read_report(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"no report at {path}", fix="give a text file")
    wanted = "--report takes one report as text: save what this exam's row has under report_text as a .txt file"
    if path.suffix.lower() in TABLES - {".txt"}:
        raise ConfigError(f"--report {path.name} is a table or data file", fix=wanted)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the report is not UTF-8 text", case=path.name, fix="save it as plain UTF-8 text") from error
    if not text.strip():
        raise InputError("the report is empty", case=path.name, fix="give a file with text")
    if _names_columns(text.lstrip().splitlines()[0]):
        raise ConfigError(f"--report {path.name} begins with names of columns: a table of reports", fix=wanted)
    return text


def _names_columns(line: str) -> bool:
    """Whether a file's first line is a table's header, or a record with its keys: many reports, not one."""
    if re.search(r"\b(?:exam_id|report_text)\b", line):
        return True
    return len(COLUMNS.intersection(word.strip(" \"'").lower() for word in re.split(r"[,;|\t]", line))) > 1
