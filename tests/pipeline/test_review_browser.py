"""The review page in a browser: what is pressed there is what comes back, from a file and from the server."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from review_work import hash_of

from petground.labeling.site import Site
from petground.pipeline.commands.review import export, import_decisions
from petground.pipeline.decided import decisions_of, kept_out, newest
from petground.pipeline.review.decisions import read_decisions, write_decisions
from petground.pipeline.review.load import open_work
from petground.pipeline.review.serve import Desk, desk_server

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium to open the page with")

HANDS = """
document.querySelector("#reviewer").value = "Doe, Jane";
const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const cards = [...document.querySelectorAll("article.finding")];
const click = (card, word) => card.querySelector(`.decide [data-decide=${word}]`).click();
const later = () => new Promise((done) => setTimeout(done, 300));
const stateOf = (card) => card.querySelector("[data-state]").textContent;
const note = (name, value) => { document.body.dataset[name] = value; };
"""
CLICKS = """
click(cards[0], "wrong_lesion"); press("1"); press("j"); press("2"); press("z");
cards[1].querySelector("[data-reason]").value = 'the "upper" one, slice 9';
click(cards[1], "unsure");
press("o");
document.body.dataset.progress = document.querySelector("#progress").textContent;
document.body.dataset.state = cards[0].querySelector("[data-state]").textContent;
URL.createObjectURL = (blob) => {
  blob.text().then((text) => { document.body.dataset[blob.type === "text/csv" ? "csv" : "jsonl"] = text; });
  return "#";
};
document.querySelector("#save-csv").click(); document.querySelector("#save-jsonl").click();
"""


def test_decisions_made_in_a_browser_come_back(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path / "out")
    page = tmp_path / "out/e1.html"
    text = page.read_text(encoding="utf-8")
    clean = _browse(page.as_uri(), tmp_path)
    assert "Refused to" not in clean[1], "the page's own rules let its own script run"
    assert "0 of 2 decided" in clean[0]
    page.write_text(_scripted(text, CLICKS), encoding="utf-8")
    dom, _ = _browse(page.as_uri(), tmp_path)
    assert 'data-progress="1 of 2 decided · 1 unsure"' in dom
    assert 'data-state="Accept · Doe, Jane"' in dom
    assert "no-outline" in dom
    found = {k: html.unescape(re.search(rf'data-{k}="([^"]*)"', dom)[1]) for k in ("csv", "jsonl")}  # type: ignore[index]
    (tmp_path / "d.csv").write_text(found["csv"], encoding="utf-8")
    (tmp_path / "d.jsonl").write_text(found["jsonl"], encoding="utf-8")
    import_decisions(work, [tmp_path / "d.csv"])
    rows = read_decisions(work / "decisions.csv", [("e1", "f001"), ("e1", "f002")])
    assert [(r["finding_id"], r["decision"], r["reason"]) for r in rows] == [
        ("f001", "accept", ""),
        ("f002", "unsure", 'the "upper" one, slice 9'),
    ]
    assert len(rows[0]["label_hash"]) == 16
    assert rows[1]["label_hash"] == hash_of(work, 1)
    events = [json.loads(line)["decision"] for line in found["jsonl"].splitlines()]
    assert events == ["wrong_lesion", "accept", "unsure"], "every step is kept, what was undone is not"


SCROLLS = """
(async () => {
  document.querySelector("main").insertAdjacentHTML("beforeend", "<div style='height:4000px'></div>");
  const to = (y) => { scrollTo({ top: y, behavior: "instant" }); return later(); };
  await to(cards[1].offsetTop - 60);
  press("2");
  note("first", stateOf(cards[0])); note("second", stateOf(cards[1]));
  await to(document.body.scrollHeight);
  press("1");
  note("unseen", stateOf(cards[0]) + stateOf(cards[1]));
  note("shown", cards[1].getBoundingClientRect().top < innerHeight);
  press("1");
  note("seen", stateOf(cards[1]));
  press("k"); press("1"); press("z");
  note("undone", document.querySelector("article.here").dataset.finding + stateOf(cards[0]));
})();
"""


def test_keys_decide_on_the_finding_that_is_on_the_screen(work: Path, tmp_path: Path) -> None:
    export(work, tmp_path / "out")
    page = tmp_path / "out/e1.html"
    page.write_text(_scripted(page.read_text(encoding="utf-8"), SCROLLS), encoding="utf-8")
    told = _told(_browse(page.as_uri(), tmp_path)[0])
    assert (told["first"], told["second"]) == ("undecided", "No lesion · Doe, Jane")
    assert told["unseen"] == told["first"] + told["second"], "no finding was in view: nothing is decided"
    assert told["shown"] == "true"
    assert told["seen"] == "Needs a label · Doe, Jane", "the same key again decides on what is now in view"
    assert told["undone"] == "f001undecided"


SERVED = """
(async () => {
  click(cards[0], "accept"); await later();
  click(cards[0], "not_lesion"); await later();
  click(cards[1], "not_lesion"); await later();
  press("z"); await later();
  click(cards[0], "unsure"); press("z"); await later();
  note("saved", document.querySelector("#saved").textContent);
  note("leaves", dispatchEvent(new Event("beforeunload", { cancelable: true })));
  window.fetch = () => Promise.reject(new Error());
  click(cards[1], "adjust"); await later();
  note("lost", document.querySelector("#saved").textContent);
  note("again", !document.querySelector("#save-server").hidden);
  note("stays", !dispatchEvent(new Event("beforeunload", { cancelable: true })));
})();
"""


def test_served_every_decision_and_every_undo_is_in_work_at_once(work: Path, tmp_path: Path) -> None:
    with _served(work, SERVED) as address:
        told = _told(_browse(address + "e1.html", tmp_path)[0])
    assert (told["saved"], told["leaves"]) == ("saved", "true")
    assert (told["lost"], told["again"], told["stays"]) == ("1 not saved: the server does not answer", "true", "true")
    rows = decisions_of(work)
    assert [r["decision"] for r in rows] == ["accept", "not_lesion", "not_lesion", "retract", "unsure", "retract"]
    assert {key: row["decision"] for key, row in newest(rows).items()} == {("e1", "f001"): "not_lesion"}
    assert kept_out(rows) == {("e1", "f001"): "not_lesion"}


def test_another_reader_sees_what_was_decided_and_by_whom(work: Path, tmp_path: Path) -> None:
    common = {"exam_id": "e1", "reason": "bowel", "reviewer": "Roe", "version": "0"}
    rows = [
        {**common, "finding_id": "f001", "decision": "not_lesion", "time": "2025-01-02T10:00:00",
         "label_hash": hash_of(work, 0)},
        {**common, "finding_id": "f001", "decision": "accept", "time": "2025-01-03T10:00:00Z",
         "label_hash": hash_of(work, 0)},
        {**common, "finding_id": "f001", "decision": "retract", "reason": "2025-01-03T10:00:00.000Z",
         "time": "2025-01-03T10:01:00Z", "label_hash": hash_of(work, 0)},
        {**common, "finding_id": "f002", "decision": "adjust", "time": "2025-01-02T10:00:00Z", "label_hash": "earlier"},
    ]  # fmt: skip
    write_decisions(work / "decisions.csv", rows)
    export(work, tmp_path / "out")
    assert "2 of 2" in (tmp_path / "out/index.html").read_text(encoding="utf-8")
    write_decisions(work / "decisions.csv", [{**rows[0], "decision": "unsure"}])
    with _served(work, "note('states', cards.map(stateOf).join('|'));") as address:
        index, _ = _browse(address + "index.html", tmp_path)
        assert re.search(r"0 of 2<small>1 unsure", index)
        write_decisions(work / "decisions.csv", rows)
        served = _browse(address + "e1.html", tmp_path)[0]
    assert _told(served)["states"] == "Not a lesion · Roe|Needs a label · Roe · label changed since"
    opened = _browse((tmp_path / "out/e1.html").as_uri(), tmp_path)[0]
    for dom in (served, opened):
        assert "2 of 2 decided · 1 on an earlier label" in dom
        assert 'placeholder="Roe: bowel"' in dom


def _told(dom: str) -> dict[str, str]:
    """What `note` left on the page."""
    body = re.search(r"<body([^>]*)>", dom)
    assert body is not None
    return {name: html.unescape(value) for name, value in re.findall(r'data-([a-z]+)="([^"]*)"', body[1])}


def _scripted(text: str, script: str) -> str:
    """The page with a script of the test's, its own rules against such scripts taken away."""
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    return text.replace("</body>", f"<script>{HANDS}{script}</script></body>")


@contextmanager
def _served(work: Path, script: str) -> Iterator[str]:
    class Scripted(Desk):
        def page(self, name: str) -> str | None:
            text = super().page(name)
            return _scripted(text, script) if text and name != "index.html" else text

    with desk_server(Scripted(open_work(work), Site()), "127.0.0.1", 0) as (server, where):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield where.removesuffix("index.html")
        server.shutdown()
        thread.join()


def _browse(address: str, tmp_path: Path) -> tuple[str, str]:
    """(DOM after the scripts ran, log) of a page."""
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", address],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr
