"""The bundled encoder, offline, and the bank that runs it once per distinct sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from petground.models.text.bank import TextBank
from petground.models.text.encoder import TextConfig, TextEncoder, TextEncoderError


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(TextConfig(max_tokens=8))


def test_bundled_weights_load_without_a_network(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    states, mask = encoder(["right axillary node", "", "left adrenal nodule with quite some words behind it"])
    assert states.shape == (3, 8, encoder.channels)
    assert encoder.channels == 384
    assert mask.sum(1).tolist()[1:] == [2, 8]  # begin and end; cut at max_tokens
    assert not states.requires_grad
    again, _ = encoder(["right axillary node"])
    assert torch.allclose(states[0][mask[0]], again[0], atol=1e-5)
    right, left = encoder(["right lung nodule"])[0], encoder(["left lung nodule"])[0]
    assert not torch.allclose(right, left, atol=1e-2)


def test_bank_encodes_each_sentence_once_and_keeps_it(encoder: TextEncoder, tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(TextEncoder):
        def __call__(self, sentences: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
            asked.extend(sentences)
            return encoder(sentences)

    bank = TextBank(Counting(encoder.config), tmp_path)
    states, mask = bank(["left node", "right  adrenal\nnodule", "left node"])
    assert sorted(asked) == ["left node", "right adrenal nodule"]
    assert torch.equal(states[0], states[2])
    assert states[0][~mask[0]].abs().sum() == 0
    direct, keep = encoder(["right adrenal nodule"])
    assert torch.allclose(states[1][mask[1]], direct[0][keep[0]], atol=1e-5)

    fresh = TextBank(Counting(encoder.config), tmp_path)
    again, _ = fresh(["left node", "right adrenal nodule"])
    assert len(asked) == 2  # from disk
    assert torch.equal(again, states[:2])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(b"adrenal" in path.read_bytes() or "adrenal" in path.name for path in files)


def test_bank_survives_half_a_file_and_another_encoder(encoder: TextEncoder, tmp_path: Path) -> None:
    bank = TextBank(encoder, tmp_path)
    states, _ = bank(["left node"])
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(TextBank(encoder, tmp_path)(["left node"])[0], states)
    other = TextEncoder(TextConfig(max_tokens=9))
    assert other.key != encoder.key
    TextBank(other, tmp_path)(["left node"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextEncoderError, match="empty"):
        TextEncoder(TextConfig(name=str(tmp_path / "empty")))(["a"])
    with pytest.raises(TextEncoderError, match="no/such-model"):
        _ = TextEncoder(TextConfig(name="no/such-model", local_files_only=True)).channels
