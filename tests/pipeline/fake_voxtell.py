"""A stand-in for the package `voxtell` in an environment of its own: the API surface of 0.1.2 (or 0.1.0), no network.

What it marks: voxels above 4 of the side that the prompt names, in the orientation in which VoxTell gets its images.
"""

from __future__ import annotations

import sys
from pathlib import Path

# the signatures of voxtell 0.1.2, voxtell/inference/predictor.py; 0.1.0 lacks what is marked new
PREDICTOR = """
import json, os, sys
import numpy as np
import torch

class VoxTellPredictor:
    def __init__(self, model_dir=None, device=torch.device("cuda"), text_encoding_model="Qwen/Qwen3-Embedding-4B"{new}):
        self.told = {{"model_dir": model_dir, "device": device.type, "path": os.environ.get("PYTHONPATH", "")}}
        {note}
        print("loading, on the standard output")
        if {crash!r}:
            os.kill(os.getpid(), 9)

    def predict_single_image(self, data, text_prompts=None{callback}):
        assert data.ndim == 4 and data.shape[0] == 1 and data.dtype == np.float32
        assert all(prompt == prompt.lower() for prompt in text_prompts)
        if any("fail" in prompt for prompt in text_prompts):
            raise RuntimeError("CUDA out of memory while it read " + text_prompts[0])
        self.told |= {{"prompts": list(text_prompts), "range": [float(data.min()), float(data.max())]}}
        with open({log!r}, "w") as file:
            json.dump(self.told, file)
        {step}
        hot = data[0] > {above}
        out = np.zeros((len(text_prompts), *data.shape[1:]), dtype=np.uint8)
        half = data.shape[3] // 2  # the last axis runs to the patient's right: RAS, turned round as SimpleITK counts
        for number, prompt in enumerate(text_prompts):
            if "left" in prompt:
                out[number, ..., :half] = hot[..., :half]
            elif "right" in prompt:
                out[number, ..., half:] = hot[..., half:]
        return out[:, :-1] if {cut!r} else out
"""
TORCH = """
class device:
    def __init__(self, type):
        self.type = type
class cuda:
    is_available = staticmethod(lambda: False)
"""


def make_peer(
    place: Path, version: str = "0.1.2", *, crash: bool = False, cut: bool = False, above: float = 4.0
) -> tuple[Path, Path]:
    """Its Python, and the file in which it notes what it was told."""
    packages, log = place / "lib", place / "told.json"
    for name in ("voxtell", "voxtell/inference", "torch"):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(TORCH if name == "torch" else "")
    new = version != "0.1.0"
    text = PREDICTOR.format(
        new=", embedding_bank=None, use_precomputed_embeddings=True" if new else "",
        note='self.told["precomputed"] = use_precomputed_embeddings' if new else "pass",
        callback=", text_embeddings=None, progress_callback=None" if new else "",
        step="assert progress_callback(1, 2) is not False and progress_callback(2, 2) is not False" if new else "pass",
        crash=crash,
        cut=cut,
        above=above,
        log=str(log),
    )
    (packages / "voxtell" / "inference" / "predictor.py").write_text(text)
    metadata = packages / f"voxtell-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: voxtell\nVersion: {version}\n")
    return interpreter(place / "python", packages), log


def interpreter(path: Path, packages: Path) -> Path:
    """This Python under another name, with those packages before its own."""
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path
