"""FHIR resources out of files, and the ones that others point to.

Read are Bundles, NDJSON as the bulk export writes it, single resources, compressed or not. A resource is the JSON
object as it is: what is read of it is checked where it is read, so that a vendor's extra field, a missing code or
another FHIR release costs no report.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from petground.labeling.errors import InputError

__all__ = [
    "SUFFIXES",
    "Broken",
    "Found",
    "Resource",
    "Store",
    "items",
    "readable",
    "records",
    "references",
    "resources",
    "word",
]

SUFFIXES = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz")
Resource = dict[str, Any]


class Found(NamedTuple):
    """A resource, the Bundle it stands in and its fullUrl there (None outside of one)."""

    resource: Resource
    bundle: Resource | None = None
    url: str | None = None


@dataclass(frozen=True)
class Broken:
    """A piece of a file that is no resource."""

    where: str
    why: str


def resources(file: Path) -> Iterator[Found | Broken]:
    """Each resource of a file.

    A deleted entry of a history Bundle comes as a resource that is entered in error. Raises InputError when the file
    cannot be read at all.
    """
    for where, value in _values(file):
        if isinstance(value, Broken):
            yield value
        elif not isinstance(value, dict) or not isinstance(value.get("resourceType"), str):
            yield Broken(where, "is no FHIR resource: it has no resourceType")
        elif value["resourceType"] == "Bundle":
            yield from _entries(value, where, 0)
        else:
            yield Found(value)


def readable(file: Path) -> Iterator[Found | Broken]:
    """`resources` for one file among many: one that cannot be read is broken and does not stop the others."""
    try:
        yield from resources(file)
    except InputError as error:
        yield Broken(file.name, error.message.removeprefix(f"{file.name} "))


def _values(file: Path) -> Iterator[tuple[str, Any]]:
    """The JSON values of a file: one, or one a line."""
    try:
        with closing(_open(file)) as stream:
            if ".ndjson" in file.name.lower() or ".jsonl" in file.name.lower():
                yield from _lines(stream, file.name)
                return
            content = stream.read()
        value = _parsed(content, file.name)
        first = content.strip().split(b"\n", 1)
        if isinstance(value, Broken) and len(first) > 1 and not isinstance(_parsed(first[0], ""), Broken):
            yield from _lines(content.splitlines(), file.name)  # a bulk export under another name
        else:
            yield file.name, value
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it breaks off"
        raise InputError(f"{file.name} cannot be read: {why}", fix="export it again") from None


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]


def _lines(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name}, line {number}"
            yield where, _parsed(line, where)


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Broken(where, "is not UTF-8")
    except (ValueError, RecursionError):  # the decoder's own message may quote the text
        start = content.lstrip()[:1]
        return Broken(where, "is XML; have it exported as JSON" if start == b"<" else "is not JSON")


def _entries(bundle: Resource, where: str, depth: int) -> Iterator[Found | Broken]:
    for number, entry in enumerate(records(bundle.get("entry")), start=1):
        resource = entry.get("resource")
        if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
            if resource["resourceType"] == "Bundle" and depth < 3:
                yield from _entries(resource, where, depth + 1)
            else:
                yield Found(resource, bundle, word(entry.get("fullUrl")))
        elif word(items(entry.get("request")).get("method")) == "DELETE":
            kind, _, name = (word(items(entry.get("request")).get("url")) or "").partition("/")
            stamp = items(entry.get("response")).get("lastModified")
            gone = {"resourceType": kind, "id": name.split("/")[0], "status": "entered-in-error"}
            yield Found({**gone, "meta": {"lastUpdated": stamp}}, bundle)
        elif resource is not None or not entry:
            yield Broken(f"{where}, entry {number}", "is no FHIR resource")
    if bundle.get("entry") is not None and not isinstance(bundle["entry"], list):
        yield Broken(where, "has entries that are no list")


def items(value: Any) -> Resource:
    """`value` when it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def records(value: Any) -> list[Resource]:
    """The objects in a JSON list (or a single one, which some servers write), [] for anything else."""
    if isinstance(value, dict):
        return [value]
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def word(value: Any) -> str | None:
    """A JSON string that is not blank, else None."""
    return value if isinstance(value, str) and value.strip() else None


@dataclass
class Store:
    """Resources by the references that lead to them: fullUrl, `Type/id`, and `Type/id/_history/n` cut short."""

    found: dict[str, Resource] = field(default_factory=dict)

    def collect(self, files: Sequence[Path], wanted: set[str]) -> None:
        """Reads the files for the resources that are `wanted` and for those that these point to, in at most 3 passes.

        Only these are kept: an export's laboratory values do not fit into memory.
        """
        wanted = {_key(reference) for reference in wanted}
        for _ in range(3):
            missing = wanted - set(self.found)
            if not missing:
                return
            further: set[str] = set()
            for file in files:
                for item in readable(file):
                    if isinstance(item, Found) and item.resource["resourceType"] != "DiagnosticReport":
                        self._keep(item, missing, further)
            wanted |= further
            for reference in missing - set(self.found):
                wanted.discard(reference)  # it is not in the export
                self.found.setdefault(reference, {})

    def _keep(self, item: Found, missing: set[str], further: set[str]) -> None:
        names = {f"{item.resource['resourceType']}/{item.resource.get('id')}"}
        if item.url is not None:
            names.add(_key(item.url))
        for name in names & missing:
            self.found[name] = item.resource
            further.update(_key(reference) for reference in references(item.resource))

    def get(self, reference: Any, holder: Resource) -> Resource:
        """What a Reference of `holder` points to: contained, by reference, or {} when it is not in the export."""
        target = word(items(reference).get("reference"))
        if target is None:
            return {}
        if target.startswith("#"):
            return next((part for part in records(holder.get("contained")) if part.get("id") == target[1:]), {})
        return self.found.get(_key(target), {})


def references(resource: Resource) -> Iterator[str]:
    """References of a report, or of what it points to, that lead on to text, accession number or patient."""
    for name in ("subject", "result", "imagingStudy", "study", "basedOn", "hasMember", "composition"):
        for reference in records(resource.get(name)):
            target = word(reference.get("reference"))
            if target and not target.startswith("#"):
                yield target
    for form in records(resource.get("presentedForm")):
        if word(form.get("url")) and not word(form.get("data")):
            yield form["url"]
    for part in records(resource.get("contained")):
        if part is not resource:
            yield from references({key: value for key, value in part.items() if key != "contained"})


def _key(reference: str) -> str:
    """`https://server/fhir/Patient/7/_history/2` and `Patient/7` are one."""
    found = re.search(r"([A-Z][A-Za-z]+/[A-Za-z0-9.\-]{1,64})(?:/_history/[^/]*)?$", reference)
    return found.group(1) if found else reference
