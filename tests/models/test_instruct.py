"""A local instruct model held to a schema: answers parse, hold numbers of the text only, and are really read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("llguidance")

from petground.models.text.instruct import Instruct, InstructConfig, InstructError, Question

SCHEMA = {
    "type": "object",
    "properties": {"slice": {"enum": [58, 104, 210]}},
    "required": ["slice"],
    "additionalProperties": False,
}
ANSWERS = {"hilar": 58, "axillary node": 104, "left femur": 210}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level model of 100 thousand weights that has learnt where three lesions lie."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("tiny")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        ["a"], trainers.BpeTrainer(vocab_size=260, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rows = [f"Where?\n\n{name}\nJSON: " + json.dumps({"slice": at}) for name, at in ANSWERS.items()]
    tokenizer.padding_side = "left"
    batch = tokenizer(rows, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.save_pretrained(place)
    model.save_pretrained(place)
    return place


def _ask(*names: str) -> list[Question]:
    return [Question("Where?", name, SCHEMA) for name in names]


def test_answers_are_read_from_the_question_in_any_batch(folder: Path) -> None:
    reader = Instruct(InstructConfig(str(folder), batch_size=2, local_files_only=True))
    names = ["left femur", "hilar", "axillary node", "hilar"]
    assert list(reader.answers(_ask(*names))) == [{"slice": ANSWERS[name]} for name in names]
    assert list(reader.answers(_ask("hilar"))) == [{"slice": 58}]


def test_the_schema_holds_whatever_the_weights_say(folder: Path) -> None:
    reader = Instruct(InstructConfig(str(folder), local_files_only=True))
    with torch.no_grad():
        for weight in reader.model.parameters():
            weight.normal_()
    pairs = {"type": "array", "items": {"enum": [1.5, 22]}, "maxItems": 3}
    schema = {"type": "object", "properties": {"pairs": pairs}, "required": ["pairs"], "additionalProperties": False}
    for answer in reader.answers([Question("s", f"question {n}", schema) for n in range(6)]):
        assert answer is not None
        assert set(answer) == {"pairs"}
        assert len(answer["pairs"]) <= 3
        assert set(answer["pairs"]) <= {1.5, 22}


def test_an_answer_cut_off_is_none(folder: Path) -> None:
    reader = Instruct(InstructConfig(str(folder), max_new_tokens=4, local_files_only=True))
    assert list(reader.answers(_ask("hilar"))) == [None]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InstructError, match="causal language model"):
        Instruct(InstructConfig(str(tmp_path), local_files_only=True))
