"""The text of a FHIR DiagnosticReport, wherever its system keeps it."""

from __future__ import annotations

from petground.pipeline.sources.fhir_store import Resource, Store, items, records, word
from petground.pipeline.sources.richtext import Unreadable, decode_base64, html_to_text, to_text

__all__ = ["report_text"]

_RANK = ("text/plain", "text/html", "application/xhtml+xml", "text/rtf", "application/rtf")


def report_text(report: Resource, store: Store, document: Resource | None) -> str:
    """The report as text: attachment, else composition, else observations, else narrative; then the conclusion.

    document: the Composition of the document Bundle that the report stands in. The conclusion comes last, as an
    impression, unless the text has it already. Raises Unreadable when all there is is a form that is not read.
    """
    problem: Unreadable | None = None
    try:
        body = _attachments(report, store)
    except Unreadable as error:
        body, problem = "", error
    composition = store.get(report.get("composition"), report) or document or {}
    body = body or _composition(composition) or _results(report, store)
    # A generated narrative repeats the resource's fields as a table: taken only where there is nothing else.
    if not body and (items(report.get("text")).get("status") != "generated" or not word(report.get("conclusion"))):
        body = _div(report.get("text"))
    conclusion = (word(report.get("conclusion")) or "").strip()
    if conclusion and _squeezed(conclusion) not in _squeezed(body):
        heading = "" if conclusion.lower().startswith(("impression", "conclusion")) else "IMPRESSION: "
        body = f"{body}\n\n{heading}{conclusion}" if body else conclusion
    if not body.strip() and problem is not None:
        raise problem
    return body


def _attachments(report: Resource, store: Store) -> str:
    """What presentedForm holds, in its plainest form; several of that form (an addendum) one after another."""
    forms: dict[int, list[str]] = {}
    problem: Unreadable | None = None
    for form in records(report.get("presentedForm")):
        media = (word(form.get("contentType")) or "text/plain").strip()
        data = word(form.get("data"))
        if data is None and word(form.get("url")):
            binary = store.get({"reference": form["url"]}, report)
            data = word(binary.get("data"))
            media = word(binary.get("contentType")) or media
            if data is None:
                problem = problem or Unreadable(
                    "report_is_link", "presentedForm is a link; export the Binary resources with the reports"
                )
                continue
        if data is None:
            continue
        kind = media.partition(";")[0].strip().lower()
        rank = _RANK.index(kind) if kind in _RANK else len(_RANK)
        try:
            text = to_text(decode_base64(data), media).strip()
        except Unreadable as error:
            problem = error
            continue
        if text and text not in forms.setdefault(rank, []):
            forms[rank].append(text)
    filled = [rank for rank in sorted(forms) if forms[rank]]
    if filled:
        return "\n\n".join(forms[filled[0]])
    if problem is not None:
        raise problem
    return ""


def _composition(composition: Resource) -> str:
    """Sections of a Composition in order, each under its title."""
    if composition.get("resourceType") != "Composition":
        return ""
    lines: list[str] = []
    todo = records(composition.get("section"))[::-1]
    while todo and len(lines) < 1000:
        section = todo.pop()
        text = _div(section.get("text"))
        title = word(section.get("title"))
        if text:
            lines.append(f"{title.strip().upper()}:\n{text}" if title and not _starts(text, title) else text)
        todo.extend(records(section.get("section"))[::-1])
    return "\n\n".join(lines)


def _results(report: Resource, store: Store) -> str:
    """Every valueString of the report's Observations and their members, under what the Observation is called."""
    lines: list[str] = []
    seen: list[Resource] = []
    todo = [(reference, report) for reference in records(report.get("result"))][::-1]
    while todo and len(seen) < 1000:
        reference, holder = todo.pop()
        observation = store.get(reference, holder)
        if not observation or any(observation is known for known in seen):
            continue
        seen.append(observation)
        if observation.get("resourceType") != "Observation" or observation.get("status") in (
            "entered-in-error",
            "cancelled",
        ):
            continue
        value = word(observation.get("valueString"))
        if value:
            lines.append(_titled(observation, value.strip()))
        for component in records(observation.get("component")):
            inner = word(component.get("valueString"))
            if inner:
                lines.append(_titled(component, inner.strip()))
        # Contained resources are the report's: a member's `#id` is looked up there.
        todo.extend((member, report) for member in records(observation.get("hasMember"))[::-1])
    return "\n\n".join(lines)


def _titled(observation: Resource, value: str) -> str:
    code = items(observation.get("code"))
    name = word(code.get("text")) or next(
        (shown for coding in records(code.get("coding")) if (shown := word(coding.get("display")))), None
    )
    return value if name is None or _starts(value, name) else f"{name.strip().upper()}:\n{value}"


def _starts(text: str, title: str) -> bool:
    return _squeezed(text).startswith(_squeezed(title))


def _div(narrative: object) -> str:
    div = word(items(narrative).get("div"))
    return html_to_text(div) if div else ""


def _squeezed(text: str) -> str:
    return " ".join(text.lower().split())
