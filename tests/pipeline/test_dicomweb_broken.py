"""DICOMweb when something is wrong: no entry, servers that die, lines that break; and what may not be told."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orthanc
import pytest
from dicomweb_archive import accession, archive_at, fetched, rows, write_reports

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.cli import main
from petground.pipeline.sources.retrieve import Exam, fetch_exam
from petground.pipeline.sources.web import PASSWORD, Server, server


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with archive_at(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def test_basic_authentication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = orthanc.Orthanc(tmp_path / "server", auth=True).start()
    try:
        running.upload(orthanc.make_exam(tmp_path / "exam", uncorrected=False), accession("A1"))
        reports, out = write_reports(tmp_path / "r.csv", "A1"), tmp_path / "e"
        command = ["fetch", "--url", running.url, "--reports", str(reports), "--out", str(out)]
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert main(command) == 1
        assert "does not let us in" in capsys.readouterr().err
        assert main([*command, "--user", orthanc.USER]) == 2
        assert f"{PASSWORD} is empty" in capsys.readouterr().err
        monkeypatch.setenv(PASSWORD, "wrong")
        assert main([*command, "--user", orthanc.USER]) == 1
        monkeypatch.setenv("TOKEN", "t0ken")
        assert main([*command, "--token-env", "TOKEN"]) == 1
        assert not out.exists()
        monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)
        assert main([*command, "--user", orthanc.USER]) == 0
        said = capsys.readouterr()
        everything = said.out + said.err + (out / "fetch.json").read_text(encoding="utf-8")
        assert orthanc.PASSWORD not in everything
        shutil.rmtree(out)
        entry = f"machine 127.0.0.1 login {orthanc.USER} password {json.dumps(orthanc.PASSWORD)}\n"
        (tmp_path / "netrc").write_text(entry, encoding="utf-8")
        (tmp_path / "netrc").chmod(0o600)
        assert main(command) == 0
    finally:
        running.kill()


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    running = orthanc.Orthanc(tmp_path / "server").start()
    try:
        running.upload(orthanc.make_exam(tmp_path / "exam", uncorrected=False), accession("A1"))
        came: list[int] = []

        def die(size: int) -> None:
            came.append(size)
            if len(came) == 20:
                running.kill()

        out = tmp_path / "e"
        with pytest.raises(InputError) as caught:
            fetch_exam(Server(running.url, retries=0), Exam("A1"), out, received=die)
        assert caught.value.reason == "unreachable"
        assert "A1" not in str(caught.value)
        assert not (out / "A1").exists(), "half an exam must not be read by anybody"
        kept = len(list((out / ".fetch").rglob("*.dcm")))
        assert 20 <= kept < 60
        (next((out / ".fetch").rglob("*.dcm")).parent / ".x.dcm.1234.part").write_bytes(b"half")
        running.start()
        row = fetch_exam(Server(running.url), Exam("A1"), out)
        assert (row["images"], row["images_fetched"]) == (60, 60 - kept)
        assert len(fetched(out / "A1")) == 60
        assert not list(out.rglob("*.part"))
    finally:
        running.kill()


def test_a_line_that_breaks_within_a_series_is_taken_up_where_it_broke(archive: Any, tmp_path: Path) -> None:
    exam = orthanc.make_exam(tmp_path / "exam", "wide", uncorrected=False, ct_side=192)
    archive.upload(exam, accession("WIDE"))
    sizes: list[int] = []
    with orthanc.breaking_line(archive.port, cut_after=1_000_000, times=2) as url:
        row = fetch_exam(Server(url, retries=1), Exam("WIDE"), tmp_path / "e", received=sizes.append)
    assert row["images"] == len(sizes) == len(fetched(tmp_path / "e")) == 60, "no image was fetched twice"
    lost = max((tmp_path / "e").rglob("*.dcm"), key=lambda file: file.stat().st_size)
    lost.unlink()
    with orthanc.breaking_line(archive.port, cut_after=60_000, times=1) as url:  # within a single image
        assert fetch_exam(Server(url, retries=1), Exam("WIDE"), tmp_path / "e")["images_fetched"] == 1
    truth = fetched(exam)
    assert set(truth) == set(fetched(tmp_path / "e"))
    for uid, dataset in fetched(tmp_path / "e").items():
        np.testing.assert_array_equal(dataset.pixel_array, truth[uid].pixel_array)


def test_no_server_at_all_and_a_web_page_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports, out = write_reports(tmp_path / "r.csv", "A1"), tmp_path / "e"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["fetch", "--reports", str(reports), "--out", str(out), "--retries", "0"]
    assert main([*command, "--url", f"http://127.0.0.1:{port}/dicom-web"]) == 1
    assert "cannot be reached" in capsys.readouterr().err

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>")
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        assert main([*command, "--url", f"http://127.0.0.1:{listener.getsockname()[1]}"]) == 1
    assert "no DICOM JSON" in capsys.readouterr().err
    assert not out.exists()


def test_a_dead_server_ends_the_run_and_says_which_exams_were_not_tried(
    archive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / "server"
    running = orthanc.Orthanc(dead).start()
    monkeypatch.setattr("petground.pipeline.commands.fetch.check", lambda where: running.kill())
    reports = write_reports(tmp_path / "r.csv", *(f"E{n}" for n in range(30)))
    started = time.monotonic()
    command = ["fetch", "--url", running.url, "--reports", str(reports), "--out", str(tmp_path / "e")]
    assert main([*command, "--retries", "0", "--workers", "2"]) == 3
    reasons = [row["reason"] for row in rows(tmp_path / "e").values()]
    assert len(reasons) == 30
    assert set(reasons) == {"unreachable", "not_tried"}
    assert reasons.count("unreachable") <= 7
    assert time.monotonic() - started < 20


def test_nothing_of_a_patient_gets_into_logs_or_the_record(
    archive: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    reports = write_reports(tmp_path / "r.csv", "ACC1", "ACC9")
    main(["fetch", "--url", archive.url, "--reports", str(reports), "--out", str(tmp_path / "e")])
    logged = "\n".join(record.getMessage() for record in caplog.records)
    said = capsys.readouterr()
    everything = logged + said.out + said.err + (tmp_path / "e" / "fetch.json").read_text(encoding="utf-8")
    assert "Phantom^" not in everything
    assert "P7" not in everything
    assert "SUVmax" not in everything
    assert "ACC" not in logged


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "pacs.example"}, "no http"),
        ({"url": "https://u:secret@pacs.example/dicom-web"}, "holds a password"),
        ({"url": "http://[::1"}, "no http"),
        ({"user": "u", "token_env": "T"}, "both given"),
        ({"ca": Path("/none.pem")}, "no certificate file"),
        ({"retries": -1}, "must be positive"),
        ({"token_env": "NOT_SET_ANYWHERE"}, "is empty"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    usual = {"url": "https://pacs.example", "user": None, "token_env": None, "ca": None, "timeout_s": 9.0, "retries": 1}
    with pytest.raises(ConfigError, match=message) as caught:
        server(**{**usual, **settings})
    assert "secret" not in str(caught.value)
    assert Server("http://pacs.example", "t").exposed
    assert not Server("http://localhost:8042", "t").exposed
    assert not Server("https://pacs.example", "t").exposed
