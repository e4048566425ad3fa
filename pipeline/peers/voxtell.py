"""VoxTell (Rokuss et al., arXiv 2511.11450; package voxtell) asked from here: image and sentences out, masks back.

It has requirements of its own, and lives in an environment of its own; `voxtell_runner` is what that Python runs.
VoxTell reads one channel in RAS+, at the spacing it comes in, and scales it by the image's own mean and deviation, so
SUVbw and HU will both do; it was trained on CT, PET and MR.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petground.labeling.errors import ConfigError, GeometryError, InputError, PetgroundError
from petground.labeling.volume import Volume
from petground.pipeline.cropped import CroppedMask
from petground.pipeline.exports.grids import mask_on, ras
from petground.pipeline.files import write_json
from petground.pipeline.geometry import grid_of, on_grid_of
from petground.pipeline.nifti import read_nifti, write_nifti

__all__ = ["ImageKind", "Said", "VoxTell", "ask", "require"]

ImageKind = Literal["pet", "ct"]
Tick = Callable[[str, int, int], None]
INSTALL = "python -m venv voxtell && voxtell/bin/pip install voxtell, then --peer-python voxtell/bin/python"
_TAIL = 2000  # characters of standard error that are kept


@dataclass(frozen=True)
class VoxTell:
    """How it is run. python: of the environment that has it, None for this one. model: a folder with plans.json and
    fold_0/checkpoint_final.pth, which is unpickled; None: $VOXTELL_MODEL, else the one it fetches itself."""

    python: Path | None = None
    model: Path | None = None
    image: ImageKind = "pet"
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Said:
    """masks: on the PET grid, one for each sentence, in any number of pieces. facts: how it was made."""

    masks: list[CroppedMask]
    facts: dict[str, Any]


def require(peer: VoxTell) -> None:
    """Raises ConfigError, with the way out, when the peer or the model that it is to use is not there."""
    for needed in ("plans.json", "fold_0/checkpoint_final.pth"):
        if peer.model is not None and not (peer.model / needed).is_file():
            raise ConfigError(
                f"--peer-model {peer.model} holds no {needed}",
                fix="give the folder of a VoxTell model, e.g. voxtell_v1.1 of mrokuss/VoxTell on the Hugging Face hub",
            )
    look = "import importlib.util, sys; sys.exit(7 * (importlib.util.find_spec('voxtell') is None))"
    with (
        tempfile.TemporaryDirectory(prefix="petground-voxtell-") as place,
        _started(peer, ["-c", look], Path(place), subprocess.DEVNULL) as process,
    ):
        code = process.wait()
    if code == 7:
        raise _missing("voxtell", _python(peer))
    if code != 0:
        raise ConfigError(f"--peer-python {_python(peer)} is no Python that runs (code {code})", fix=INSTALL)


def ask(peer: VoxTell, pet: Volume, ct: Volume | None, sentences: Sequence[str], *, case: str, tick: Tick) -> Said:
    """What VoxTell marks for each sentence.

    Image and sentences lie in a folder that only this user can read, for as long as it runs. Raises ConfigError when
    the peer is not there, InputError without the image it is to read and when it fails, GeometryError when a mask does
    not lie on that image.
    """
    image = pet if peer.image == "pet" else ct
    if image is None:
        raise InputError("the exam has no CT for VoxTell to read", case=case, fix="give --peer-image pet")
    model = peer.model or os.environ.get("VOXTELL_MODEL") or None
    distinct = list(dict.fromkeys(_prompt(sentence) for sentence in sentences))
    with tempfile.TemporaryDirectory(prefix="petground-voxtell-") as place:
        folder = Path(place)
        (folder / "masks").mkdir()
        write_nifti(folder / "image.nii.gz", ras(image))
        job = {
            "image": str(folder / "image.nii.gz"),
            "prompts": distinct,
            "out": str(folder / "masks"),
            "model": None if model is None else str(Path(model).resolve()),
            "device": peer.device,
        }
        write_json(folder / "job.json", job)
        made = _child(peer, folder, case, tick) if distinct else {}
        files = [folder / "masks" / f"{n}.nii.gz" for n in range(len(distinct))]
        masks = [CroppedMask.of(_back(file, image, pet, case), pet.affine) for file in files]
    facts = {
        "peer": "voxtell",
        "model": "its own choice" if model is None else Path(model).resolve().name,
        "image": peer.image,
        "unit": image.unit,
        **made,
    }
    return Said([masks[distinct.index(_prompt(sentence))] for sentence in sentences], facts)


def _prompt(sentence: str) -> str:
    """Lower case in one line, as VoxTell's own prompts are."""
    return " ".join(sentence.lower().split())


def _child(peer: VoxTell, folder: Path, case: str, tick: Tick) -> dict[str, Any]:
    """Runs the peer to its end; what it said of itself."""
    runner = folder / "voxtell_runner.py"  # alone in its folder: beside this file its import would find this file
    runner.write_text((files("petground.pipeline.peers") / "voxtell_runner.py").read_text(encoding="utf-8"))
    said: dict[str, Any] = {}
    with (folder / "errors.txt").open("w+b") as errors:
        process = _started(peer, [str(runner), str(folder / "job.json")], folder, errors)
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.endswith(b"\n"):
                        break  # it died in the middle of a word
                    said = json.loads(line)
                    if said["event"] == "windows":
                        tick("windows", said["done"], said["total"])
            except BaseException:  # Ctrl-C among them: no child stays behind with a graphics card
                process.kill()
                raise
        if said.get("event") == "done":
            return {name: value for name, value in said.items() if name != "event"}
        raise _failure(said, process.returncode, _python(peer), errors, case)


def _started(peer: VoxTell, arguments: Sequence[str], folder: Path, errors: Any) -> subprocess.Popen[bytes]:
    """The peer's Python in a folder of its own, without what belongs to this one."""
    mine = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        return subprocess.Popen(
            [_python(peer), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=mine,
        )
    except OSError as error:
        raise ConfigError(f"--peer-python {_python(peer)} cannot be run: {error.strerror}", fix=INSTALL) from error


def _python(peer: VoxTell) -> str:
    return str((peer.python or Path(sys.executable)).absolute())  # not resolved: a venv's Python is a link


def _missing(package: str, python: str) -> ConfigError:
    return ConfigError(f"'{package}' is not installed for {python}", fix=INSTALL)


def _failure(said: dict[str, Any], code: int, python: str, errors: Any, case: str) -> PetgroundError:
    """Why it failed, without a line that may hold a sentence of the report."""
    if said.get("event") == "failed" and said["kind"] == "missing":
        return _missing(said["message"], python)
    if said.get("event") == "failed":
        told = f"{said['kind']}: {said['message']}"
        return InputError(f"VoxTell failed: {told}", case=case, fix=_advice(told), reason="peer_failed")
    errors.seek(max(0, errors.tell() - _TAIL))
    tail = errors.read().decode("utf-8", errors="replace")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    fix = _advice(tail) if code >= 0 else "its memory may not have been enough: see that it has 16 GB and more"
    return InputError(f"VoxTell {how} before it answered", case=case, fix=fix, reason="peer_failed")


def _advice(told: str) -> str:
    low = told.lower()
    if "out of memory" in low or "allocate" in low:
        return "it needs a graphics card with 16 GB or more; or give --device cpu"
    if any(word in low for word in ("connect", "resolve", "offline", "couldn't find them", "localentrynotfound")):
        return (
            "it fetches its model and Qwen/Qwen3-Embedding-4B from the Hugging Face hub: fetch both once where there "
            "is a network, and give the model by --peer-model"
        )
    if "unexpected keyword" in low or "has no attribute" in low:
        return "this release of voxtell is another than the 0.1 that is known: install voxtell==0.1.2"
    return "run `voxtell-predict` on an image in that environment to see whether it works there"


def _back(path: Path, image: Volume, pet: Volume, case: str) -> NDArray[np.bool_]:
    """A mask on the image that was sent, on the PET grid."""
    try:
        mask = on_grid_of(read_nifti(path, "label"), image)
    except GeometryError as error:
        raise GeometryError("a mask of VoxTell is not on the image that it was given", case=case) from error
    if image is pet:
        return np.asarray(mask.array > 0, dtype=np.bool_)
    return mask_on(np.asarray(mask.array > 0), image, grid_of(pet))
