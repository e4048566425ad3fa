"""Exams on the model's grid, kept on disk under a hash of all that they depend on.

An exam is KEY.npz. With patches its image lies beside it as KEY.npy, of which only what a patch needs is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from petground.labeling.errors import PetgroundError
from petground.labeling.volume import require_same_grid
from petground.pipeline.files import sha256_of
from petground.pipeline.nifti import read_nifti
from petground.training.digests import Digests
from petground.training.grid import GridSpec, mask_to_model_grid, to_model_grid
from petground.training.patches import cut
from petground.training.work import Exam

__all__ = ["GridExam", "cache_key", "is_on_grid", "load_exam", "on_grid", "put_on_grid"]

_log = logging.getLogger(__name__)
_VERSION = 3  # raise when preprocessing changes, and models/networks.py's with it


@dataclass(frozen=True, eq=False)
class GridExam:
    """image [2, Z, Y, X] in 0..1; targets[n] the flat voxel indices of example n and their share in 0..1.

    The image is float32, or with patches a float16 map of the file on disk.
    """

    image: NDArray[np.floating[Any]]
    targets: tuple[tuple[NDArray[np.int64], NDArray[np.float32]], ...]

    def target(self, number: int) -> NDArray[np.float32]:
        """[Z, Y, X] in 0..1 of one example."""
        dense = np.zeros(self.image.shape[1:], dtype=np.float32)
        index, share = self.targets[number]
        dense.reshape(-1)[index] = share
        return dense

    def voxels(self, number: int) -> NDArray[np.int64]:
        """[N, 3]: z, y, x of one example's voxels that it covers by half or more, of all when there is none."""
        index, share = self.targets[number]
        index = index[share >= 0.5] if (share >= 0.5).any() else index
        return np.stack(np.unravel_index(index, self.image.shape[1:]), axis=-1).astype(np.int64)

    def image_part(self, start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> NDArray[np.float32]:
        """[2, *shape] float32 from `start` on, which may lie outside of the grid: zero there."""
        return cut(self.image, start_zyx, shape_zyx)

    def target_part(self, number: int, start_zyx: Sequence[int], shape_zyx: Sequence[int]) -> NDArray[np.float32]:
        """`target`'s part [*shape] from `start` on, without the whole."""
        dense = np.zeros(tuple(shape_zyx), dtype=np.float32)
        index, share = self.targets[number]
        place = np.stack(np.unravel_index(index, self.image.shape[1:]), axis=-1) - np.asarray(start_zyx)
        inside = ((place >= 0) & (place < dense.shape)).all(axis=1)
        dense[tuple(place[inside].T)] = share[inside]
        return dense


def cache_key(work: Path, exam: Exam, spec: GridSpec, digest_of: Callable[[Path], str] = sha256_of) -> str:
    """Hash of the files' contents, the grid and this module's version. digest_of: of a file, by its content."""
    settings = asdict(spec)
    settings.pop("patch_step")  # inference alone asks for it
    if spec.patch_zyx is None:
        settings.pop("patch_zyx")
    digest = hashlib.sha256(json.dumps([_VERSION, settings], sort_keys=True).encode())
    for path in (exam.pet_path, exam.ct_path, *(example.mask_path for example in exam.examples)):
        digest.update(f"\0{digest_of(work / path) if path else ''}".encode())
    return digest.hexdigest()[:32]


def load_exam(work: Path, exam: Exam, spec: GridSpec, folder: Path, *, key: str | None = None) -> GridExam:
    """From the cache, else made and put there.

    Raises GeometryError when a mask does not lie on its PET's grid.
    """
    path = folder / f"{key or cache_key(work, exam, spec)}.npz"
    if path.is_file():
        try:
            return _read(path, spec)
        except (OSError, ValueError, KeyError, BadZipFile):
            _log.warning("%s: the cached grid is damaged and made anew", exam.exam_id)
    made = _make(work, exam, spec)
    folder.mkdir(parents=True, exist_ok=True)
    image = made.image.astype(np.float16)
    if spec.patch_zyx is not None:  # before the .npz: who finds that finds the image, too
        with _whole(path.with_suffix(".npy")) as file:
            np.save(file, image)
        image = image[:, :0]
    with _whole(path) as file:
        _write(file, made, image)
    return _read(path, spec)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write under another name, renamed when it is whole: several processes may share a folder."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def on_grid(
    work: Path, exam: Exam, spec: GridSpec, folder: Path, digest_of: Callable[[Path], str] = sha256_of
) -> tuple[Exam, str]:
    """The exam with those examples that have a voxel on the model's grid, maybe none, and its cache key.

    A label outside the grid would else teach that nothing is where the sentence tells of a lesion.
    """
    key = cache_key(work, exam, spec, digest_of)
    try:
        with np.load(folder / f"{key}.npz", allow_pickle=False) as file:
            lengths = file["lengths"].tolist()  # not the image: read at every start, for every exam
    except (OSError, ValueError, KeyError, BadZipFile):
        lengths = [len(index) for index, _ in load_exam(work, exam, spec, folder, key=key).targets]
    kept = tuple(example for example, length in zip(exam.examples, lengths, strict=True) if length)
    if len(kept) == len(exam.examples):
        return exam, key
    exam = replace(exam, examples=kept)
    key = cache_key(work, exam, spec, digest_of)
    if kept and not (folder / f"{key}.npz").is_file():
        load_exam(work, exam, spec, folder, key=key)
    return exam, key


def is_on_grid(work: Path, exam: Exam, spec: GridSpec, folder: Path, digests: Digests) -> bool:
    """Whether the cache holds the exam, and all its files are known unread: then nothing is left to be made."""
    files = [work / path for path in (exam.pet_path, exam.ct_path, *(e.mask_path for e in exam.examples)) if path]
    return all(map(digests.knows, files)) and (folder / f"{cache_key(work, exam, spec, digests.of)}.npz").is_file()


def put_on_grid(
    work: Path,
    exams: Sequence[Exam],
    spec: GridSpec,
    folder: Path,
    digests: Digests,
    *,
    workers: int = 0,
    tick: Callable[[str, int, int], None] | None = None,
) -> None:
    """`on_grid` of every exam, by `workers` processes (0: this one), with what they hashed in `digests`.

    tick("exams", done, total). Errors as `load_exam`.
    """
    made = DataLoader(
        _ToMake(work, exams, spec, folder, digests),
        batch_size=None,
        num_workers=min(workers, len(exams)),
        collate_fn=_as_it_is,
    )
    try:
        for done, (found, error) in enumerate(made, start=1):
            digests.add(found)
            if error is not None:
                raise error
            if tick is not None:
                tick("exams", done, len(exams))
    finally:
        digests.save()


class _ToMake(Dataset["tuple[dict[str, list[int | str]], PetgroundError | None]"]):
    """Makes an exam's cached grid when it is asked for; gives what was hashed on the way, and what went wrong.

    An error is given and not raised: a loader would raise another, made of its text alone.
    """

    def __init__(self, work: Path, exams: Sequence[Exam], spec: GridSpec, folder: Path, digests: Digests):
        self.work, self.exams, self.spec, self.folder, self.digests = work, exams, spec, folder, digests

    def __len__(self) -> int:
        return len(self.exams)

    def __getitem__(self, number: int) -> tuple[dict[str, list[int | str]], PetgroundError | None]:
        error = None
        before = set(self.digests.new)
        try:
            on_grid(self.work, self.exams[number], self.spec, self.folder, self.digests.of)
        except PetgroundError as caught:
            error = caught
        return {place: entry for place, entry in self.digests.new.items() if place not in before}, error


def _as_it_is(item: Any) -> Any:
    return item


def _make(work: Path, exam: Exam, spec: GridSpec) -> GridExam:
    try:
        pet = read_nifti(work / exam.pet_path, "SUVbw")
        ct = read_nifti(work / exam.ct_path, "HU") if exam.ct_path else None
        image, template = to_model_grid(pet, ct, spec)
        targets = []
        for example in exam.examples:
            mask = read_nifti(work / example.mask_path, "label")
            require_same_grid(pet, mask)
            dense = mask_to_model_grid(mask, template).reshape(-1)
            index = np.flatnonzero(dense)
            targets.append((index.astype(np.int64), dense[index].astype(np.float32)))
    except PetgroundError as error:
        error.case = error.case or exam.exam_id
        raise
    return GridExam(image, tuple(targets))


def _write(file: IO[bytes], exam: GridExam, image: NDArray[np.float16]) -> None:
    lengths = np.asarray([len(index) for index, _ in exam.targets], dtype=np.int64)
    index = np.concatenate([index for index, _ in exam.targets]) if exam.targets else np.zeros(0, dtype=np.int64)
    share = np.concatenate([share for _, share in exam.targets]) if exam.targets else np.zeros(0, dtype=np.float32)
    np.savez(file, image=image, lengths=lengths, index=index, share=share)


def _read(path: Path, spec: GridSpec) -> GridExam:
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])
        parts = (np.split(file[name], ends)[:-1] for name in ("index", "share"))
        targets = tuple(zip(*parts, strict=True))
        if spec.patch_zyx is None:
            return GridExam(file["image"].astype(np.float32), targets)
    return GridExam(np.load(path.with_suffix(".npy"), mmap_mode="r", allow_pickle=False), targets)
