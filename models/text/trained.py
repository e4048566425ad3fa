"""A text encoder that is trained with the network: by low-rank adapters, or all of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petground.models.text.config import LoraOptions, TextConfig, TextEncoderError
from petground.models.text.encoder import encode, load_text_model

__all__ = ["TrainedEncoder", "build_text_model"]


class TrainedEncoder(nn.Module):
    """Sentences in, states of their tokens out, with gradients.

    Its state_dict holds what is trained and nothing else: adapters alone, or the whole model. Loading one leaves the
    weights that were never trained as they are; one that lacks trained weights is refused as by any module.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.tokenizer, model = load_text_model(config)
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # reads the first token's state only: never used here, and DDP waits for its gradients
        self.model = _with_adapters(model, config.lora) if config.train == "lora" else model.requires_grad_(True)
        self.train()  # transformers hands models over in evaluation mode
        self._left_out = {name for name, p in self.named_parameters() if not p.requires_grad}
        if config.train == "lora":
            self._left_out |= {name for name, _ in self.named_buffers()}
        self.register_state_dict_post_hook(_only_trained)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_may_lack)  # type: ignore[no-untyped-call]

    def forward(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        """S sentences -> states [S, P, D] float32 and mask [S, P] bool; each distinct sentence is read once."""
        distinct = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
        states, mask = encode(self.tokenizer, self.model, list(distinct), self.config.max_tokens)
        order = torch.tensor([distinct[sentence] for sentence in sentences], device=states.device)
        return states.index_select(0, order), mask.index_select(0, order)


def build_text_model(config: TextConfig) -> TrainedEncoder | None:
    """The encoder as a module to train; None for a frozen one, whose states are banked."""
    return None if config.train == "frozen" else TrainedEncoder(config)


def _with_adapters(model: Any, options: LoraOptions) -> Any:
    """The model, frozen, with adapters in place; they are float32 and change nothing before the first step."""
    if importlib.util.find_spec("peft") is None:
        raise TextEncoderError("text.train: lora needs peft: pip install 'petground[lora]'")
    from peft import LoraConfig, inject_adapter_in_model

    adapters = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
    )
    linear = sorted({name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)})
    try:
        model = inject_adapter_in_model(adapters, model.requires_grad_(False))
    except ValueError as error:
        said = str(error).splitlines()[0]
        raise TextEncoderError(f"text.lora.target_modules: {said} Linear layers are: {', '.join(linear)}") from error
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    return model


def _only_trained(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in getattr(module, "_left_out", ()):
        state.pop(prefix + name, None)


def _may_lack(module: nn.Module, incompatible: Any) -> None:
    left_out: Mapping[str, None] = dict.fromkeys(getattr(module, "_left_out", ()))
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not _ends_in(key, left_out)]


def _ends_in(key: str, names: Mapping[str, None]) -> bool:
    """Whether a key is one of the names under some prefix."""
    parts = key.split(".")
    return any(".".join(parts[start:]) in names for start in range(len(parts)))
