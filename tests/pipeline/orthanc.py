"""A real Orthanc with its DICOMweb plugin for the tests, phantom exams to put into it, and a line that breaks."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from petground.labeling.volume import Volume
from petground.pipeline.phantom.dicom_out import write_dicom
from petground.pipeline.phantom.records import Patient, PhantomExam

PLUGINS = [
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    *sorted(Path("/usr/lib/orthanc").glob("libOrthancDicomWeb.so*")),
]
USER, PASSWORD = "reader", "a secret"


class Orthanc:
    """One server process; `url` is its DICOMweb root."""

    def __init__(self, folder: Path, *, auth: bool = False) -> None:
        self.program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        self.plugin = next((path for path in PLUGINS if path.exists()), None)
        if self.plugin is None or not Path(self.program).exists():
            pytest.skip("Orthanc is not installed (Debian, Ubuntu: apt-get install orthanc orthanc-dicomweb)")
        self.folder, self.auth = folder, (USER, PASSWORD) if auth else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/dicom-web"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Orthanc:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {
            "StorageDirectory": str(self.folder / "db"),
            "IndexDirectory": str(self.folder / "db"),
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": self.auth is not None,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(self.plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, str(file)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{self.root}/system", auth=self.auth, timeout=5).raise_for_status()
                return self
            time.sleep(0.05)
        self.kill()
        raise AssertionError("Orthanc did not start: " + (self.folder / "log").read_text(encoding="utf-8")[-2000:])

    def kill(self) -> None:
        """As the power cut would: nothing is said to the clients."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def upload(self, folder: Path, change: Callable[[pydicom.Dataset], None]) -> list[pydicom.Dataset]:
        """Every DICOM file of a folder, changed before; returns what was uploaded."""
        sent = []
        with requests.Session() as session:
            session.auth = self.auth
            for file in sorted(folder.rglob("*.dcm")):
                dataset = pydicom.dcmread(file)
                change(dataset)
                content = io.BytesIO()
                dataset.save_as(content, enforce_file_format=True)
                session.post(f"{self.root}/instances", data=content.getvalue(), timeout=30).raise_for_status()
                sent.append(dataset)
        return sent


LESION_IJK, LESION_SUV = (15, 8, 11), 12.0


def phantom(exam_id: str = "p1", *, ct_side: int = 32) -> PhantomExam:
    """A box of a body with one hot ball, off centre on every axis. Slices from the head: 30 - 11 = 19."""
    rng = np.random.default_rng(sum(exam_id.encode()))
    pet = rng.uniform(0.8, 1.2, (24, 20, 30)).astype(np.float32)
    ijk = np.indices(pet.shape)
    near = sum((axis - centre) ** 2 for axis, centre in zip(ijk, LESION_IJK, strict=True))
    pet = np.maximum(pet, LESION_SUV * np.exp(-near / 6.0)).astype(np.float32)
    ct = rng.integers(-50, 60, (ct_side, ct_side, 30)).astype(np.float32)
    pet_affine = np.array([[-4.0, 0, 0, 48], [0, -4.0, 0, 40], [0, 0, 4.0, -700], [0, 0, 0, 1.0]])
    mm = 96.0 / ct_side
    ct_affine = np.array([[-mm, 0, 0, 48], [0, -mm, 0, 40], [0, 0, 4.0, -700], [0, 0, 0, 1.0]])
    patient = Patient("P7", "M", 67, 81.5, 178.0, "FDG", "2022-11-30", 371.25, 61.0)
    return PhantomExam(exam_id, patient, Volume(pet, pet_affine, "SUVbw"), Volume(ct, ct_affine, "HU"), ())


def make_exam(folder: Path, exam_id: str = "p1", *, uncorrected: bool = True, ct_side: int = 32) -> Path:
    write_dicom(phantom(exam_id, ct_side=ct_side), folder, uncorrected=uncorrected)
    return folder


@contextlib.contextmanager
def breaking_line(port: int, cut_after: int, times: int) -> Iterator[str]:
    """A TCP relay to a port that hangs up after so many bytes of an answer, the first `times` times; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [times]

    def pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                count += len(data)
                if limit is not None and count > limit and left[0] > 0:
                    left[0] -= 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=pump, args=(client, upstream, None), daemon=True).start()
                threading.Thread(target=pump, args=(upstream, client, cut_after), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
