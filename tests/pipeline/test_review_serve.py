"""The review server: pages for those who know the address, decisions straight into WORK."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_work import hash_of

from petground.labeling.errors import ConfigError
from petground.labeling.site import Site
from petground.pipeline.review.decisions import read_sheet
from petground.pipeline.review.load import Work, open_work
from petground.pipeline.review.pack import exam_entry
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


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"reason": "\\ud800"}', "no text"),
        (b'{"reason": "a\\u0000b"}', "no text"),
        (b'{"reason": [["a"]]}', "a field is no text"),
        (b'{"reason": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"reason": ' + b"9" * 6000 + b"}", "not JSON"),
        (b'{"reason": "' + b"x" * 200_000 + b'"}', "characters"),
        (b'{"time": "2999-01-01T00:00:00Z"}', "in the future"),
        (b'{"time": "0001-01-01T00:00:00+14:00", "decision": "?"}', "unknown decision"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_what_no_page_would_send_is_answered_with_400_and_nothing_is_kept(
    address: str, work: Path, body: bytes, why: str
) -> None:
    if body.startswith(b"{"):
        row = json.loads(_row(work))
        name = body.split(b'"')[1].decode()
        rest = {k: v for k, v in row.items() if k != name}
        body = json.dumps(rest).encode()[:-1] + b", " + body[1:]
    status, told = _get(address + "decisions", body)
    assert status == 400
    assert why in json.loads(told)["error"]
    assert not (work / "decisions.csv").exists()
    assert _get(address + "decisions", _row(work))[0] == 200, "the server goes on"


def test_any_reason_that_a_person_can_type_comes_back(address: str, work: Path) -> None:
    reason = 'a\u2028b\x85c, "d"; e\r\nf\tg \U0001f600'
    assert _get(address + "decisions", _row(work, reason=reason))[0] == 200
    assert _get(address + "decisions", _row(work, decision="unsure"))[0] == 200
    assert [r["reason"] for r in read_sheet(work / "decisions.csv")] == [reason, ""]


def test_the_index_of_an_archive_goes_through_each_table_once() -> None:
    class Counted(list[dict[str, Any]]):
        times = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            self.times += 1
            return super().__iter__()

    ids = [f"e{n}" for n in range(50)]
    told = {"finding_id": "f1", "status": "positive", "stage": "check", "sentence": "x", "rank": 0}
    tables = [Counted({"exam_id": e, **told} for e in ids) for _ in range(3)]
    work = Work(Path("w"), [{"exam_id": e, "status": "ok"} for e in ids], *tables)
    entries = [exam_entry(work, exam) for exam in work.exams]
    assert [(e["exam_id"], e["findings"], e["labels"]) for e in entries] == [(e, 1, 1) for e in ids]
    assert [table.times for table in tables] == [1, 1, 1]


def test_a_port_in_use_is_named(work: Path, address: str) -> None:
    port = int(address.split(":")[2].split("/")[0])
    with (
        pytest.raises(ConfigError, match="cannot listen"),
        desk_server(Desk(open_work(work), Site()), "127.0.0.1", port),
    ):
        pass
