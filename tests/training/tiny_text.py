"""Random text models of two layers and 16 features in a folder, as `save_pretrained` leaves them; no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)
from transformers.utils import logging

WORDS = (
    ". avid left right axillary adrenal inguinal node nodule lesion small large with quite some more words behind it"
)
POSITIONS = 12
KINDS = ("bert", "roberta", "gpt2", "llama", "t5")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def make_text_model(place: Path, kind: str, seed: int = 0) -> Path:
    """A model of that kind with its tokenizer; the decoders' have no token to pad with."""
    torch.manual_seed(seed)
    logging.disable_progress_bar()
    model: PreTrainedModel
    if kind in ("bert", "roberta"):
        around = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
        size = _tokenizer(place, ["<s>", "<pad>", "</s>", "<unk>"], "<s> $A </s>", pad_token="<pad>", **around)
        kwargs = {"vocab_size": size, "max_position_embeddings": POSITIONS, "pad_token_id": 1, **SIZES}
        bert = kind == "bert"
        model = BertModel(BertConfig(**kwargs)) if bert else RobertaModel(RobertaConfig(**kwargs, type_vocab_size=1))
    elif kind == "gpt2":
        size = _tokenizer(place, ["<unk>", "<end>"], None, eos_token="<end>")
        gpt = GPT2Config(
            vocab_size=size, n_positions=POSITIONS, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1
        )
        model = GPT2Model(gpt)
    elif kind == "llama":
        size = _tokenizer(place, ["<unk>", "<s>", "</s>"], "<s> $A", bos_token="<s>", eos_token="</s>")
        model = LlamaModel(LlamaConfig(vocab_size=size, max_position_embeddings=POSITIONS, **SIZES))
    else:
        size = _tokenizer(place, ["<pad>", "</s>", "<unk>"], "$A </s>", eos_token="</s>", pad_token="<pad>")
        model = T5Model(
            T5Config(vocab_size=size, d_model=16, d_kv=8, num_layers=2, num_heads=2, d_ff=24, decoder_start_token_id=0)
        )
    model.save_pretrained(place)
    return place


def _tokenizer(place: Path, specials: Sequence[str], template: str | None, **names: str) -> int:
    """Whole words and special tokens; returns how many."""
    ids = {word: number for number, word in enumerate([*specials, *WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        used = [(token, ids[token]) for token in specials if token in template.split()]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names).save_pretrained(place)
    return len(ids)
