"""Encoders and decoders of every kind: frozen states, the bank between processes, adapters, full training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_text import KINDS, POSITIONS, make_text_model

from petground.models.text import bank
from petground.models.text.bank import TextBank
from petground.models.text.config import LoraOptions, TextConfig, TextEncoderError
from petground.models.text.encoder import TextEncoder
from petground.models.text.files import available_encoders
from petground.models.text.trained import TrainedEncoder, build_text_model

SHORT, LONG = "left axillary node", "right adrenal nodule " + "with quite some more words behind it " * 3
peft = pytest.importorskip("peft", reason="the extra lora is not installed")


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("text")
    return {kind: make_text_model(folder / kind, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_any_kind_do_not_depend_on_what_else_is_in_the_batch(kind: str, places: dict[str, Path]) -> None:
    encoder = TextEncoder(TextConfig(name=str(places[kind])))
    assert encoder.channels == 16
    states, mask = encoder([SHORT, "", LONG])
    assert states.dtype == torch.float32
    assert not states.requires_grad
    assert mask.any(dim=1).all(), "an empty sentence has a token, or nothing could be attended to"
    assert torch.isfinite(states[mask]).all()
    assert not mask[0][int(mask[0].sum()) :].any(), "padded on the right"
    if kind != "t5":  # relative positions have no end
        assert states.shape[1] <= POSITIONS, "cut where the model's positions end"
    for number, sentence in enumerate([SHORT, "", LONG]):
        alone, keep = encoder([sentence])
        assert torch.allclose(states[number][mask[number]], alone[0][keep[0]], atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_token_sees_what_stands_before_it_only(kind: str, places: dict[str, Path]) -> None:
    encoder = TextEncoder(TextConfig(name=str(places[kind])))
    (one, other), mask = encoder(["left axillary node", "left axillary lesion"])
    same = int(mask[0].sum()) - 1
    assert torch.allclose(one[:same], other[:same], atol=1e-6)
    assert not torch.allclose(one[same], other[same], atol=1e-2)


def test_weights_in_half_precision_are_another_encoder(places: dict[str, Path]) -> None:
    whole, half = (TextEncoder(TextConfig(name=str(places["llama"]), dtype=d)) for d in ("float32", "bfloat16"))
    assert whole.key != half.key
    assert half.model_on(torch.device("cpu"))[1].dtype == torch.bfloat16
    states, _ = half([SHORT])
    assert states.dtype == torch.float32
    assert torch.allclose(states, whole([SHORT])[0], atol=0.1)


def test_files_that_are_missing_or_of_another_model_are_refused(places: dict[str, Path], tmp_path: Path) -> None:
    bare = make_text_model(tmp_path / "bare", "bert")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TextEncoderError, match="tokenizer's files are missing"):  # transformers makes up an empty one
        TextEncoder(TextConfig(name=str(bare)))([SHORT])
    mixed = make_text_model(tmp_path / "mixed", "gpt2")
    words = (mixed / "tokenizer.json").read_text()
    (mixed / "tokenizer.json").write_text(words.replace('"behind": ', '"behind": 5'))  # its number is past the weights
    with pytest.raises(TextEncoderError, match="do not belong together"):
        TextEncoder(TextConfig(name=str(mixed)))(["words behind it"])
    cut = make_text_model(tmp_path / "cut", "bert")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(TextEncoderError, match="cannot be loaded from local files"):
        TextEncoder(TextConfig(name=str(cut)))([SHORT])


def test_a_name_that_is_not_here_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TextEncoderError, match=r"some/encoder.*hf download some/encoder.*petground info"):
        _ = TextEncoder(TextConfig(name="some/encoder")).channels
    with pytest.raises(TextEncoderError, match="local_files_only forbids"):
        _ = TextEncoder(TextConfig(name="some/encoder", local_files_only=True)).channels


def test_encoders_on_this_machine_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name, kind in (("clinic--reader", "bert"), ("clinic--half", "gpt2")):
        repo = hub / f"models--{name}"
        place = make_text_model(repo / "snapshots" / ("0" * 40), kind)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("0" * 40)
        if name.endswith("half"):
            (place / "model.safetensors").unlink()
    import huggingface_hub.utils._cache_manager  # noqa: F401  (its default folder is bound when it is imported)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    found = available_encoders()
    assert set(found) == {"minilm", "clinic/reader"}
    assert "hub's cache" in found["clinic/reader"]


COUNTING = """
import sys, time, torch
from pathlib import Path
from types import SimpleNamespace
from petground.models.text import bank
from petground.models.text.bank import TextBank

class Counting:
    key = "k"
    config = SimpleNamespace(max_tokens=8)

    def __call__(self, sentences):
        with open(sys.argv[2], "a") as file:
            file.writelines(f"{one}\\n" for one in sentences)
        time.sleep(0.3)
        words = [[float(len(word)) for word in one.split()] for one in sentences]
        return torch.tensor(words)[..., None], torch.ones(len(words), len(words[0]), dtype=torch.bool)

bank = TextBank(Counting(), Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
bank.add(["left node", "right node", "avid  lesion"], batch=1)
print(bank(["right node", "left node", "avid lesion"])[0].flatten().tolist())
"""


def test_of_two_processes_one_encodes_and_both_read_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COUNTING, str(tmp_path / "bank"), str(tmp_path / "asked.txt")]
    both = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in both:  # both go on before either is waited for
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=120)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted((tmp_path / "asked.txt").read_text().splitlines()) == ["avid lesion", "left node", "right node"]
    assert said == ["[5.0, 4.0, 4.0, 4.0, 4.0, 6.0]\n"] * 2


def test_memory_of_the_bank_is_bounded_and_nothing_is_encoded_twice(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [f"Avid left node number {n}." for n in range(12)]
    whole = TextBank(TextEncoder(TextConfig(name=str(places["bert"]))))
    wanted, mask = whole(sentences)
    held = 3 * max(states.nbytes for states in whole._states.values())
    monkeypatch.setattr(bank, "HELD_BYTES", held)
    small = TextBank(TextEncoder(TextConfig(name=str(places["bert"]))), tmp_path)
    small.add(sentences)
    monkeypatch.setattr(TextEncoder, "__call__", lambda *_: 1 / 0)
    for order in (range(12), reversed(range(12)), (0, 5, 0, 7, 11, 0)):
        for n in order:
            states, _ = small([sentences[n]])
            torch.testing.assert_close(states[0], wanted[n][mask[n]])
            assert sum(kept.nbytes for kept in small._states.values()) == small._bytes <= held
    torch.testing.assert_close(small(sentences)[0], wanted)
    assert len(whole._states) == 12, "without a folder there is nowhere to read them from again"


def test_a_file_of_the_bank_that_was_changed_is_made_anew(places: dict[str, Path], tmp_path: Path) -> None:
    encoder = TextEncoder(TextConfig(name=str(places["roberta"])))
    states, _ = TextBank(encoder, tmp_path)(["left node"])
    [file] = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    other = load_file(file)["states"] + 1.0
    zeroed = whole[:-64] + bytes(64)
    for content in (b"", whole[: len(whole) // 2], zeroed, whole + b"1"):
        file.write_bytes(content)
        assert torch.equal(TextBank(encoder, tmp_path)(["left node"])[0], states)
        assert file.read_bytes() == whole
    for tensors, told in (({"states": other}, {"sha256": "0"}), ({"states": other}, None), ({"other": other}, None)):
        save_file(tensors, file, metadata=told)
        assert torch.equal(TextBank(encoder, tmp_path)(["left node"])[0], states)
        assert file.read_bytes() == whole
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_change_nothing_at_first_and_alone_are_kept(kind: str, places: dict[str, Path]) -> None:
    frozen, _ = TextEncoder(TextConfig(name=str(places[kind])))([SHORT, LONG])
    torch.manual_seed(1)
    trained = build_text_model(TextConfig(name=str(places[kind]), train="lora", lora=LoraOptions(rank=2)))
    assert trained is not None
    states, mask = trained.eval()([SHORT, LONG])
    assert torch.allclose(states[mask], frozen[mask], atol=1e-5)
    kept = trained.state_dict()
    assert kept
    assert all("lora_" in name for name in kept)
    assert sum(t.numel() for t in kept.values()) == sum(p.numel() for p in trained.parameters() if p.requires_grad)

    trained.train()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        states, mask = trained([SHORT, LONG])
        states[mask].square().sum().backward()
        optimizer.step()
    moved, keep = trained.eval()([SHORT, LONG])
    assert not torch.allclose(moved[keep], frozen[keep], atol=1e-2)
    again = TrainedEncoder(trained.config).eval()
    again.load_state_dict({name: tensor.clone() for name, tensor in trained.state_dict().items()})
    assert torch.equal(again([SHORT, LONG])[0], moved)
    broken = dict(list(trained.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="lora_"):
        again.load_state_dict(broken)


@pytest.mark.parametrize("kind", KINDS)
def test_full_training_reaches_every_weight_and_needs_no_other_file_afterwards(
    kind: str, places: dict[str, Path], tmp_path: Path
) -> None:
    trained = TrainedEncoder(TextConfig(name=str(places[kind]), train="full"))
    assert trained.training
    states, mask = trained([SHORT, LONG, SHORT])
    states[mask].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained.parameters())
    bare = make_text_model(tmp_path / "bare", kind)
    (bare / "model.safetensors").unlink()
    again = TrainedEncoder(TextConfig(name=str(bare), train="full", pretrained=False))
    assert not torch.equal(again.eval()([SHORT])[0], trained.eval()([SHORT])[0])
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again([SHORT])[0], trained([SHORT])[0])
    assert TextEncoder(again.config).key == TextEncoder(trained.config).key, "weights are the checkpoint's"


def test_layers_for_adapters_are_named_when_they_are_not_there(places: dict[str, Path]) -> None:
    config = TextConfig(name=str(places["bert"]), train="lora", lora=LoraOptions(target_modules=["wrong"]))
    with pytest.raises(TextEncoderError, match=r"target_modules.*dense, key, query, value"):
        TrainedEncoder(config)
    named = TrainedEncoder(TextConfig(name=config.name, train="lora", lora=LoraOptions(target_modules=["key"])))
    assert all(".key.lora_" in name for name in named.state_dict())


def test_without_peft_the_extra_is_named(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TextEncoderError, match=r"petground\[lora\]"):
        TrainedEncoder(TextConfig(name=str(places["bert"]), train="lora"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": "full", "dtype": "bfloat16"}, {"pretrained": False}, {"lora": {"rank": 4}}, {"max_tokens": 0},
        {"train": "lora", "lora": {"rank": 0}}, {"train": "lora", "lora": {"dropout": 1.0}}, {"lr_factor": 0.0},
        {"train": "lora", "lora": {"target_modules": []}},
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TextEncoderError):
        TextConfig(**wrong)  # type: ignore[arg-type]
