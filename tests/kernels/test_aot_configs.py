"""What the networks of configs/train launch on a GPU is among the launches that are compiled ahead."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from petground.models.net_config import NetConfig
from petground.models.networks import build_network

pytest.importorskip("triton", reason="Triton is not installed: pip install 'petground[triton]'")
aot_build = importlib.import_module("petground.kernels.aot_build")
runtime = importlib.import_module("petground.kernels._triton.runtime")

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs" / "train").glob("*.yaml"))
ARCHS = (80, 90, 100)
# sentences are padded to the longest, which has any number of words: odd, or even and no multiple of 16
WORDS = (37, 40)


class _Calls(TorchDispatchMode):
    """{what tells calls apart: (operator, arguments)} of ours, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Any, tuple[str, tuple[Any, ...]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.namespace == "petground":
            told = tuple((a.shape, a.stride(), a.dtype) if isinstance(a, Tensor) else a for a in args)
            self.found[func, told] = (func._schema.name.removeprefix("petground::"), args)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Step:
    """A step of training without memory, as in bf16 on a GPU: exams x sentences, words of the longest."""

    file: Path
    entries: tuple[int, int]
    words: int | None  # None: as many as the configuration lets through

    def calls(self) -> _Calls:
        model = yaml.safe_load(self.file.read_text())["model"]
        config = NetConfig(**model["net"])
        words = self.words or model["text"]["max_tokens"]
        if config.architecture == "llmseg":
            words = config.llmseg.prompts
        shape = model["grid"].get("patch_zyx") or model["grid"]["shape_zyx"]
        with torch.device("meta"):
            network = build_network(config, 384).bfloat16()
            image = torch.empty(self.entries[0], 2, *shape, dtype=torch.bfloat16)
            tokens = torch.empty(*self.entries, words, 384, dtype=torch.bfloat16)
            mask = torch.ones(*self.entries, words, dtype=torch.bool)
            with _Calls() as calls:
                decoded = network.decode(network.encode(image), tokens, mask)
                torch.stack([stage.float().sum() for stage in decoded.stages]).sum().backward()
        return calls

    def launches(self, *archs: int) -> Iterator[tuple[int, Any]]:
        for arch, (name, args) in product(archs, self.calls().found.values()):
            operator = name.removesuffix("_backward")
            module = importlib.import_module(f"petground.kernels.{operator}.triton")
            run = module.forward_triton if name == operator else module.backward_triton
            assert args[-1] == "triton"  # the last argument is the backend, which the launchers do not take
            with runtime.capture(arch) as recorded:
                run(*args[:-1])
            yield from ((arch, one) for one in recorded)


def _steps() -> Iterator[Any]:
    for file in CONFIGS:
        if "net" in yaml.safe_load(file.read_text())["model"]:
            for words in (None, *WORDS):
                yield pytest.param(_Step(file, (1, 2), words), id=f"{file.stem}-{words or 'most'}")


@pytest.mark.parametrize("step", _steps())
def test_every_launch_of_a_shipped_network_is_compiled_ahead(step: _Step) -> None:
    for arch, one in step.launches(*ARCHS):
        assert aot_build.key_of(one, arch) in aot_build.keyed(arch), (arch, one.kernel.__name__, one.arguments)


@pytest.mark.parametrize("entries", [(1, 1), (2, 8), (5, 1)])
@pytest.mark.parametrize("name", ["demo", "contextual_net_3d"])
def test_numbers_of_exams_and_sentences_make_no_other_kernels(name: str, entries: tuple[int, int]) -> None:
    file = next(file for file in CONFIGS if file.stem == name)
    keys = [
        {aot_build.key_of(one, arch) for arch, one in _Step(file, several, 37).launches(90)}
        for several in ((1, 2), entries)
    ]
    assert keys[0] == keys[1]
    assert keys[0]
