"""Token states of every distinct sentence, worked out once and kept on disk; content-addressed safetensors."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from petground.models.text.encoder import TextEncoder

__all__ = ["TextBank"]

HELD_BYTES = 2**30  # of states, in memory: what was asked for longest ago is read from disk again


class TextBank:
    """States by sentence, in memory and (with a folder) as `<folder>/<encoder key>/<sentence hash>.safetensors`.

    The file's name and content hold no text. Sentences are normalised by collapsing white space only. Processes may
    share the folder: one of them encodes, the others wait and read. A file that is not as it was written is made anew.
    With a folder at most HELD_BYTES of states are in memory.
    """

    def __init__(self, encoder: TextEncoder, folder: Path | None = None):
        self.encoder = encoder
        self.folder = folder / encoder.key if folder is not None else None
        self._states: dict[str, Tensor] = {}  # the longest not asked for first
        self._bytes = 0

    def __call__(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> token states [S, P, D] float32, zero where padded, and mask [S, P] bool."""
        words = [" ".join(sentence.split()) for sentence in sentences]
        self.add(words)
        states = [self._state(word) for word in words]
        mask = torch.zeros(len(states), max(len(s) for s in states), dtype=torch.bool)
        for row, state in zip(mask, states, strict=True):
            row[: len(state)] = True
        return torch.nn.utils.rnn.pad_sequence(states, batch_first=True), mask

    def add(self, sentences: Sequence[str], batch: int = 64) -> None:
        """Encodes those sentences that are neither in memory nor on disk."""
        words = dict.fromkeys(" ".join(sentence.split()) for sentence in sentences)
        missing = [word for word in words if not self._recall(self._key(word))]
        if not missing:
            return
        with self._alone():
            missing = sorted((w for w in missing if not self._recall(self._key(w))), key=len)  # another was quicker
            for start in range(0, len(missing), batch):
                chunk = missing[start : start + batch]
                states, mask = self.encoder(chunk)
                for word, state, keep in zip(chunk, states, mask, strict=True):
                    self._keep(self._key(word), state[keep].contiguous())

    def _key(self, sentence: str) -> str:
        return hashlib.sha256(sentence.encode()).hexdigest()[:40]

    def _state(self, word: str) -> Tensor:
        key = self._key(word)
        if not self._recall(key):  # its file went since
            self.add([word])
        return self._states[key]

    def _hold(self, key: str, states: Tensor) -> None:
        self._states[key] = states
        self._bytes += states.nbytes
        while self.folder is not None and self._bytes > HELD_BYTES and len(self._states) > 1:
            self._bytes -= self._states.pop(next(iter(self._states))).nbytes

    def _recall(self, key: str) -> bool:
        if key in self._states:
            self._states[key] = self._states.pop(key)
            return True
        path = self.folder / f"{key}.safetensors" if self.folder is not None else None
        if path is None or not path.is_file():
            return False
        try:
            with safe_open(path, framework="pt") as file:
                states, digest = file.get_tensor("states"), (file.metadata() or {}).get("sha256")
        except (SafetensorError, KeyError, OSError, ValueError):  # half a file from a full disk
            return False
        if digest != _digest(states):
            return False
        self._hold(key, states)
        return True

    def _alone(self) -> AbstractContextManager[object]:
        if self.folder is None:
            return nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")  # the system lets go of it when its holder dies

    def _keep(self, key: str, states: Tensor) -> None:
        self._hold(key, states)
        if self.folder is None:
            return
        part = self.folder / f".{key}.{uuid.uuid4().hex}.part"
        try:
            save_file({"states": states}, part, metadata={"sha256": _digest(states)})
            os.replace(part, self.folder / f"{key}.safetensors")
        finally:
            part.unlink(missing_ok=True)


def _digest(states: Tensor) -> str:
    """Of shape and content: safetensors itself would not notice a zeroed block."""
    return hashlib.sha256(f"{tuple(states.shape)}".encode() + states.numpy().tobytes()).hexdigest()
