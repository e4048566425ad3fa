"""A local instruct model by Hugging Face name that answers in JSON of a given schema, and in nothing else.

The grammar is enforced while decoding (llguidance: masks over the vocabulary, one per sequence and step), so that every
answer parses, and numbers can be limited to those that stand in the text. Nothing leaves the machine.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Instruct", "InstructConfig", "InstructError", "Question"]


class InstructError(RuntimeError):
    """The model cannot be found or loaded, or a library is missing; the message says which and what to do."""


@dataclass(frozen=True)
class InstructConfig:
    """Which model answers, and how.

    Args:
        name: Hugging Face name of a causal language model, or a folder with config, tokenizer and weights.
        revision: branch, tag or commit on the hub.
        dtype: float32, bfloat16, float16, or auto: as the weights were saved.
        device: cpu, cuda, cuda:1 ...
        batch_size: questions answered at once.
        max_new_tokens: an answer that is longer is given up.
        local_files_only: never ask the network.
    """

    name: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    batch_size: int = 8
    max_new_tokens: int = 160
    local_files_only: bool = False


@dataclass(frozen=True)
class Question:
    """What the model is told (system), asked (user), and the JSON schema of its answer."""

    system: str
    user: str
    schema: dict[str, Any]


class Instruct:
    """A loaded model. Greedy decoding: the same question gets the same answer, whatever it is batched with."""

    def __init__(self, config: InstructConfig):
        if importlib.util.find_spec("llguidance") is None:
            raise InstructError("the second reader needs llguidance: pip install 'petground[llm]'")
        from llguidance.hf import from_tokenizer
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # ours shows reports, not tensors
        hub = {"revision": config.revision, "local_files_only": config.local_files_only}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.name, padding_side="left", **hub)
            model = AutoModelForCausalLM.from_pretrained(config.name, dtype=config.dtype, **hub)
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InstructError(f"'{config.name}' is no causal language model that can be loaded: {first}") from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.config = config
        self.model: Any = model.to(config.device).eval()
        self.grammar_tokens = from_tokenizer(self.tokenizer, n_vocab=model.config.vocab_size)

    @property
    def revision(self) -> str:
        """Commit of the weights where the hub told it, else the revision asked for."""
        return str(getattr(self.model.config, "_commit_hash", None) or self.config.revision or "local")

    def answers(self, questions: Sequence[Question]) -> Iterator[Any | None]:
        """The parsed answers in order; None where `max_new_tokens` did not hold one."""
        size = self.config.batch_size
        for start in range(0, len(questions), size):
            yield from self._batch(questions[start : start + size])

    @torch.inference_mode()
    def _batch(self, questions: Sequence[Question]) -> list[Any | None]:
        texts = [self._prompt(q) for q in questions]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=self._plain)
        inputs = {name: inputs[name].to(self.config.device) for name in ("input_ids", "attention_mask")}
        prompt_length, schemas = inputs["input_ids"].shape[1], [q.schema for q in questions]
        out = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.config.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            logits_processor=[_Grammar(self.grammar_tokens, schemas, prompt_length, self.tokenizer.eos_token_id)],
        )
        texts = self.tokenizer.batch_decode(out[:, prompt_length:], skip_special_tokens=True)
        return [_parsed(text) for text in texts]

    @property
    def _plain(self) -> bool:
        return not self.tokenizer.chat_template

    def _prompt(self, question: Question) -> str:
        if self._plain:
            return f"{question.system}\n\n{question.user}\nJSON: "
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text


class _Grammar:
    """Logits processor: what would leave the schema of its row gets minus infinity. Made anew for every batch."""

    def __init__(self, tokens: Any, schemas: Sequence[dict[str, Any]], prompt_length: int, end: int):
        from llguidance import LLMatcher

        compact = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
        self.rows = [
            LLMatcher(tokens, LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=compact))
            for schema in schemas
        ]
        self.read, self.end = prompt_length, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids [B, T], scores [B, vocabulary] -> scores with the forbidden tokens at minus infinity."""
        for row, ids in zip(self.rows, input_ids[:, self.read :].tolist(), strict=True):
            for token in ids:
                if not row.is_stopped():
                    row.consume_token(token)
        self.read = input_ids.shape[1]
        masks = [_mask(row, scores.shape[1], self.end) for row in self.rows]
        return scores.masked_fill(~torch.stack(masks).to(scores.device), float("-inf"))


def _mask(row: Any, size: int, end: int) -> Tensor:
    """Which tokens may follow [vocabulary]; after a whole answer only the token that ends it."""
    if row.is_stopped():
        return torch.arange(size) == end
    bits = torch.frombuffer(bytearray(row.compute_bitmask()), dtype=torch.uint8)
    flags = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    mask = flags.flatten()[:size].bool()
    return torch.nn.functional.pad(mask, (0, size - mask.numel()))


def _parsed(text: str) -> Any | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
