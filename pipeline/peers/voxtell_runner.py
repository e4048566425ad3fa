"""Runs VoxTell on one image. Executed by the peer's own Python, from a copy: it knows nothing of this package.

`python voxtell_runner.py JOB.json`. The job names `image` (a NIfTI in RAS+), `prompts`, `out` (a folder), `model` (a
folder, or null), `device` (auto, cpu, cuda). Writes OUT/<number>.nii.gz, a mask for each prompt on the image's grid.
What the parent is told are JSON lines on the standard output; what a library prints goes to standard error.

Written against voxtell 0.1.2 (`VoxTellPredictor(model_dir, device, use_precomputed_embeddings)`,
`predict_single_image(data, text_prompts, progress_callback)` -> [prompts, ...] of 0 and 1 on the grid that nnU-Net's
`NibabelIOWithReorient` read) and 0.1.0, which has neither callback nor embeddings.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOGITS = 400_000_000  # of all prompts that are answered at once: they are held in half precision


def main() -> int:
    """Exit code 0, or 1 after a line that says what failed."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(event: str, **facts: Any) -> None:
        channel.write(json.dumps({"event": event, **facts}) + "\n")
        channel.flush()

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for needed in ("voxtell", "nnunetv2", "torch"):
        if importlib.util.find_spec(needed) is None:
            say("failed", kind="missing", message=needed)
            return 1
    try:
        say("done", **_run(job, say))
    except Exception as error:  # whatever it is, the parent has to hear of it, and without the patient's sentences
        text = next(iter(str(error).strip().splitlines()), "")
        for prompt in job["prompts"]:
            text = text.replace(prompt, "[prompt]")
        say("failed", kind=type(error).__name__, message=text[:500])
        return 1
    return 0


def _run(job: dict[str, Any], say: Callable[..., None]) -> dict[str, Any]:
    torch = importlib.import_module("torch")
    reader = importlib.import_module("nnunetv2.imageio.nibabel_reader_writer").NibabelIOWithReorient()
    predictor_of = importlib.import_module("voxtell.inference.predictor").VoxTellPredictor
    place = ("cuda" if torch.cuda.is_available() else "cpu") if job["device"] == "auto" else job["device"]
    # the published embeddings are of single words; a report's sentence is not among them
    options = {"model_dir": job["model"], "device": torch.device(place), "use_precomputed_embeddings": False}
    predictor = predictor_of(**_known(predictor_of, options))
    image, properties = reader.read_images([job["image"]])
    voxels = int(image.size)
    chunk = max(1, LOGITS // voxels)
    prompts = job["prompts"]
    chunks = -(-len(prompts) // chunk)
    for number in range(chunks):

        def step(done: int, total: int, number: int = number) -> bool:
            say("windows", done=number * total + done, total=chunks * total)
            return True

        some = prompts[number * chunk : (number + 1) * chunk]
        how = _known(predictor.predict_single_image, {"progress_callback": step})
        masks = predictor.predict_single_image(image, some, **how)
        if masks.shape != (len(some), *image.shape[1:]):
            raise ValueError(f"masks {masks.shape} for {len(some)} prompts on a grid of {image.shape[1:]}")
        for offset, mask in enumerate(masks):
            reader.write_seg(mask, str(Path(job["out"]) / f"{number * chunk + offset}.nii.gz"), properties)
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("voxtell", "nnunetv2", "torch")},
        "device": place,
    }


def _known(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that this release of the peer takes."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in taken}


if __name__ == "__main__":
    sys.exit(main())
