"""The review server: pages for those who know the address, decisions straight into WORK."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from review_work import hash_of

from petground.labeling.errors import ConfigError
from petground.labeling.site import Site
from petground.pipeline.review.decisions import read_sheet
from petground.pipeline.review.load import open_work
from petground.pipeline.review.serve import Desk, desk_server


@pytest.fixture
def address(work: Path) -> Iterator[str]:
    with desk_server(Desk(open_work(work), Site()), "127.0.0.1", 0) as (server, where):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield where.removesuffix("index.html")
        server.shutdown()
        thread.join()


def _get(url: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _row(work: Path, **other: str) -> bytes:
    row = {
        "exam_id": "e1", "finding_id": "f001", "decision": "accept", "reason": "", "reviewer": "Roe",
        "time": "2026-01-02T10:00:00Z", "version": "0", "label_hash": hash_of(work, 0),
    }  # fmt: skip
    return (json.dumps(row | other) + "\n").encode()


def test_pages_come_when_asked_for(address: str) -> None:
    status, index = _get(address + "index.html")
    assert status == 200
    assert 'href="e1.html"' in index
    status, page = _get(address + "e1.html")
    assert status == 200
    assert 'data-finding="f001"' in page
    assert _get(address + "nothing.html")[0] == 404
    assert _get(address + "../exams.parquet")[0] == 404


def test_nobody_without_the_secret_word(address: str, work: Path) -> None:
    root = address.rsplit("/", 2)[0]
    for path in ("/", "/index.html", "/x/index.html", "/e1.html"):
        assert _get(root + path)[0] == 404
    assert _get(root + "/decisions", _row(work))[0] == 404
    assert not (work / "decisions.csv").exists()


def test_saved_decisions_are_in_work_at_once_and_only_once(address: str, work: Path) -> None:
    assert _get(address + "decisions", _row(work)) == (200, '{"added": 1, "total": 1}')
    assert _get(address + "decisions", _row(work)) == (200, '{"added": 0, "total": 1}')
    assert _get(address + "decisions", _row(work, decision="not_lesion"))[1] == '{"added": 1, "total": 2}'
    assert [r["decision"] for r in read_sheet(work / "decisions.csv")] == ["accept", "not_lesion"]


@pytest.mark.parametrize(
    ("other", "why"),
    [({"decision": "yes"}, "unknown decision"), ({"finding_id": "f9"}, "no finding"), ({"time": "x"}, "time")],
)
def test_a_wrong_decision_is_refused_and_said(address: str, work: Path, other: dict[str, str], why: str) -> None:
    status, told = _get(address + "decisions", _row(work) + _row(work, **other))
    assert status == 400
    assert why in json.loads(told)["error"]
    assert not (work / "decisions.csv").exists()


def test_a_port_in_use_is_named(work: Path, address: str) -> None:
    port = int(address.split(":")[2].split("/")[0])
    with (
        pytest.raises(ConfigError, match="cannot listen"),
        desk_server(Desk(open_work(work), Site()), "127.0.0.1", port),
    ):
        pass
