"""FHIR resources as hospitals export them, and the rows that are read of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from petground.pipeline.sources.fhir import read_fhir
from petground.pipeline.sources.rows import Row

TEXT = "FINDINGS: Left axillary node, SUVmax 5.5, slice 104."


ACSN = "http://terminology.hl7.org/CodeSystem/v2-0203"


def b64(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def identifier(value: str, code: str | None = "ACSN", system: str = "urn:oid:1.2.3") -> dict[str, Any]:
    kind = {"type": {"coding": [{"system": ACSN, "code": code}]}} if code else {}
    return {**kind, "system": system, "value": value}


def report(name: str = "r1", accession: str | None = "A1", body: str | None = TEXT, **fields: Any) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": name,
        "status": "final",
        "code": {"text": "PET/CT with FDG"},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2024-01-03T09:30:00+01:00",
        "issued": "2024-01-04T08:00:00.000+01:00",
    }
    if accession:
        resource["identifier"] = [identifier(accession)]
    if body is not None:
        resource["presentedForm"] = [{"contentType": "text/plain", "data": b64(body)}]
    return {**resource, **fields}


def bundle(*resources: dict[str, Any], kind: str = "collection") -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [
            {"fullUrl": f"https://ehr.example/fhir/{r['resourceType']}/{r.get('id')}", "resource": r} for r in resources
        ],
    }


def read(tmp_path: Path, value: Any, name: str = "r.json", **options: Any) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return list(read_fhir(path, **options))
