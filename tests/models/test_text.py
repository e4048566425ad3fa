"""The bundled encoder, offline, and the bank that runs it once per distinct sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from petground.models.text import encoder as encoder_module
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
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
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


def test_sentences_that_are_cut_are_told_by_number_and_not_by_text(
    encoder: TextEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder_module._tell_cut.cache_clear()
    bank = TextBank(encoder, tmp_path)
    bank.add(["left node", "left left left left left left"])  # with begin and end eight tokens: none is cut
    assert bank(["left left left left left left"])[1].sum() == 8
    assert not caplog.records
    for _ in range(2):
        encoder(["left node", "right axillary node beside the pectoral muscle, SUVmax 5.2, slice 104."])
    assert ["more than 8 tokens" in record.message for record in caplog.records] == [True]
    assert "axillary" not in caplog.text


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextEncoderError, match="empty"):
        TextEncoder(TextConfig(name=str(tmp_path / "empty")))(["a"])
    with pytest.raises(TextEncoderError, match="no/such-model"):
        _ = TextEncoder(TextConfig(name="no/such-model", local_files_only=True)).channels


def _folder(place: Path, weights: bytes, tokens: bytes = b"t") -> Path:
    place.mkdir(parents=True)
    for name, content in {"config.json": b"{}", "model.safetensors": weights, "spiece.model": tokens}.items():
        (place / name).write_bytes(content)
    return place


def test_key_is_of_the_contents_not_of_sizes(tmp_path: Path) -> None:
    large = bytes(5 << 20)

    def key(name: str, *contents: bytes) -> str:
        return TextEncoder(TextConfig(name=str(_folder(tmp_path / name, *contents)))).key

    first = key("a", large)
    assert key("b", large) == first  # wherever it lies
    assert key("c", large[:-1] + b"1") != first
    assert key("d", large, b"u") != first
    (tmp_path / "a" / "model.safetensors").write_bytes(b"1" + large[1:])  # in the same process, same size
    assert TextEncoder(TextConfig(name=str(tmp_path / "a"))).key != first
    (tmp_path / "b" / "pytorch_model.bin").write_bytes(b"never read beside safetensors")
    assert TextEncoder(TextConfig(name=str(tmp_path / "b"))).key == first


def test_key_of_a_hub_name_is_that_of_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tmp_path / "hub" / "models--some--encoder"
    snapshots = [_folder(repo / "snapshots" / ("0" * 39 + n), n.encode()) for n in "12"]
    (repo / "refs").mkdir()
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    keys = []
    for snapshot in snapshots:
        (repo / "refs" / "main").write_text(snapshot.name)
        keys.append(TextEncoder(TextConfig(name="some/encoder")).key)
        assert keys[-1] == TextEncoder(TextConfig(name=str(snapshot))).key
    assert keys[0] != keys[1]
    with pytest.raises(TextEncoderError, match="no/such-model"):
        _ = TextEncoder(TextConfig(name="no/such-model", local_files_only=True)).key
