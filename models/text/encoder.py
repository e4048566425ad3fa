"""Any Hugging Face text encoder or decoder: sentence in, states of its tokens out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from petground.models.text.config import TextConfig, TextEncoderError
from petground.models.text.files import WEIGHTS, contents, files_of, resolve_encoder, snapshot

__all__ = [
    "TextConfig",
    "TextEncoder",
    "TextEncoderError",
    "encode",
    "load_text_model",
    "longest",
    "resolve_encoder",
    "tokenise",
]

_log = logging.getLogger(__name__)
_OFFSET = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text", "mra", "yoso")
"""Kinds whose position numbers begin behind the pad token's id: so many fewer tokens fit."""


class TextEncoder:
    """A frozen encoder on the CPU, loaded at the first sentence; deterministic.

    `key` names what the states depend on (weights, tokenizer, cut), so that states on disk are never another
    encoder's: it is the hash of the files' contents, of a folder as of a name's snapshot in the hub's cache.
    """

    def __init__(self, config: TextConfig):
        self.config = config
        self._loaded: tuple[Any, Any] | None = None

    @property
    def key(self) -> str:
        """20 hex digits. Fetches a name's files when they are not here yet. Raises TextEncoderError as loading does.

        Of an encoder that is trained in full it is that of config and tokenizer: the weights are the checkpoint's.
        """
        config = self.config
        own = config.train == "full"
        facts = [config.max_tokens] if config.dtype == "float32" else [config.max_tokens, config.dtype]
        files = files_of(self._folder(weights=not own), weights=not own)
        return hashlib.sha256(json.dumps([*facts, *contents(files)]).encode()).hexdigest()[:20]

    @property
    def channels(self) -> int:
        """Features per token, from the config alone (no weights read)."""
        from transformers import AutoConfig

        config = _tried(AutoConfig.from_pretrained, self.config)
        size = getattr(config, "hidden_size", None) or getattr(config, "d_model", None)
        if size is None:
            raise TextEncoderError(f"text encoder '{self.config.name}' is no text model: its config has no hidden_size")
        return int(size)

    def __call__(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> last-layer token states [S, P, D] float32 and mask [S, P] bool (True = a real token).

        An empty sentence keeps the encoder's own begin and end tokens.
        """
        tokenizer, model = self._load()
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            states, mask = encode(tokenizer, model, sentences, self.config.max_tokens)
        return states.clone(), mask.clone()

    def model_on(self, device: torch.device) -> tuple[Any, Any]:
        """Tokenizer (pads on the right) and the frozen model on a device, for who runs it with gradients."""
        with torch.inference_mode(False):  # weights made in inference mode could never take part in training
            tokenizer, model = self._load()
            return tokenizer, model.to(device)

    def unload(self) -> None:
        """Frees the weights; the next sentence loads them again."""
        self._loaded = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            tokenizer, model = load_text_model(self.config)
            self._loaded = tokenizer, model.eval().requires_grad_(False)
        return self._loaded

    def _folder(self, *, weights: bool) -> Path:
        """Where config, tokenizer and weights lie."""
        place = resolve_encoder(self.config.name)
        if Path(place).is_dir():
            return Path(place)
        found = snapshot(place)
        if found is None or (weights and not any(file.suffix in WEIGHTS for file in files_of(found))):
            self._load()
            found = snapshot(place)
        if found is None:
            raise TextEncoderError(f"the files of text encoder '{place}' are not in the hub's cache")
        return found


def load_text_model(config: TextConfig) -> tuple[Any, Any]:
    """Tokenizer, padding on the right, and the model whose last layer is read: of an encoder-decoder its encoder.

    Without `config.pretrained` the weights are random. Raises TextEncoderError when it cannot be had.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    tokenizer = _tried(_with_words(AutoTokenizer.from_pretrained), config)
    if tokenizer.pad_token is None:  # the mask tells what pads from words, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise TextEncoderError(f"the tokenizer of '{config.name}' has no token to pad with")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    if config.pretrained:
        model = _tried(AutoModel.from_pretrained, config, dtype=getattr(torch, config.dtype))
    else:
        model = AutoModel.from_config(_tried(AutoConfig.from_pretrained, config), dtype=torch.float32)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return tokenizer, model


def encode(tokenizer: Any, model: Any, sentences: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """S sentences -> last-layer states [S, P, D] float32 and mask [S, P] bool, on the model's device."""
    ids, mask = tokenise(tokenizer, sentences, min(max_tokens, longest(tokenizer, model.config)))
    known = model.get_input_embeddings().num_embeddings
    if int(tokenizer.pad_token_id) >= known:  # added by who made the tokenizer; nobody attends to it
        ids = ids.masked_fill(mask == 0, 0)
    if int(ids.max()) >= known:
        raise TextEncoderError(f"tokenizer and weights do not belong together: token {int(ids.max())} of {known}")
    ids, mask = ids.to(model.device), mask.to(model.device)
    return model(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask.bool()


def tokenise(tokenizer: Any, sentences: Sequence[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """S sentences -> ids [S, P] int64 and mask [S, P] int64, padded on the right, at least one token each.

    Decoders' tokenizers often make none of an empty sentence; it becomes the begin token, or the one that pads. What
    comes after max_tokens is left out, and the log says so once.
    """
    batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    ids, mask = batch["input_ids"].long(), batch["attention_mask"].long()
    full = [sentence for sentence, keep in zip(sentences, mask, strict=True) if int(keep.sum()) >= max_tokens]
    if full and max(map(len, tokenizer(full, truncation=True, max_length=max_tokens + 1)["input_ids"])) > max_tokens:
        _tell_cut(max_tokens)
    empty = mask.sum(1) == 0
    if bool(empty.any()):
        begin = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        if ids.shape[1] == 0:
            ids, mask = ids.new_full((len(ids), 1), begin), mask.new_zeros(len(mask), 1)
        ids[empty, 0], mask[empty, 0] = begin, 1
    return ids, mask


@cache
def _tell_cut(most: int) -> None:
    _log.warning("some sentences have more than %d tokens: what they say after those is not read", most)


def longest(tokenizer: Any, config: Any) -> int:
    """Tokens that the model can read at once."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return int(tokenizer.model_max_length)
    behind = any(kind in config.model_type for kind in _OFFSET)
    return min(int(tokenizer.model_max_length), int(positions) - ((config.pad_token_id or 0) + 1 if behind else 0))


def _with_words(load: Callable[..., Any]) -> Callable[..., Any]:
    """Refuses the tokenizer without a vocabulary that transformers makes up where the tokenizer's files are missing."""

    def checked(place: str, **how: Any) -> Any:
        tokenizer = load(place, **how)
        if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
            raise OSError("its tokenizer's files are missing")
        return tokenizer

    return checked


def _tried(load: Callable[..., Any], config: TextConfig, **how: Any) -> Any:
    """What is on this machine first, without asking the network; then the hub, unless that is forbidden."""
    place = resolve_encoder(config.name)
    here = Path(place).is_dir() or snapshot(place) is not None
    try:
        return load(place, local_files_only=True, **how)
    except Exception as error:  # the libraries raise many kinds for files that are missing, cut or of another format
        if Path(place).is_dir() or (here and config.local_files_only):
            raise TextEncoderError(
                f"text encoder '{config.name}' cannot be loaded from local files: {_first_line(error)}"
            ) from error
        if config.local_files_only:
            raise TextEncoderError(
                f"text encoder '{config.name}' is not on this machine, and local_files_only forbids to fetch it"
            ) from error
    try:
        return load(place, **how)
    except Exception as error:
        raise TextEncoderError(
            f"text encoder '{config.name}' is not on this machine and cannot be fetched: {_first_line(error)} Without "
            f"a network: `hf download {config.name}` where there is one, and copy ~/.cache/huggingface here; or name "
            "a folder with config, tokenizer and weights. `petground info` lists the encoders that are here."
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return line if line.endswith((".", "!", "?")) else f"{line}."
