"""Exams and their sentences for training: one encoder pass serves several sentences, some about nothing there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from petground.labeling.errors import ConfigError, InputError
from petground.training.augment import Augment, AugmentConfig
from petground.training.cache import cache_key, load_exam
from petground.training.grid import GridSpec
from petground.training.splits import Splits, read_splits, split_patients, write_splits
from petground.training.work import Exam, Example, read_exams, swap_sides

__all__ = ["ExamDataset", "GroundingData"]

_log = logging.getLogger(__name__)
Item = Mapping[str, Any]


class GroundingData(pl.LightningDataModule):
    """Reads what `petground label` wrote.

    Args:
        work: the WORK folder: exams.parquet, labels.parquet and the files they name.
        augment: how far training exams are changed; null turns it off.
        sentences: sentences decoded per exam in a training step, from one encoder pass.
        absent_fraction: share of them that are other exams' sentences about a place where this exam has nothing
            labelled; their target is empty. They teach the model to read, and to say no.
        swapped_fraction: share of the absent ones that are the exam's own sentences with left and right exchanged.
        place_fraction: share of all sentences that are cut down to side and site, so that the words that tell the
            place are learnt whatever stands around them.
        exams_per_step: exams in a training step.
        validation_fraction: share of the patients that validate.
        splits: a splits.json of an earlier run instead.
        min_confidence: labels below are not used.
        cache: folder of exams on the model's grid and of sentences' token states; WORK/cache by default.
        workers: loader processes; 0 loads in the main process.
        seed: of the split and of everything random in the loading.
    """

    def __init__(
        self,
        work: Path,
        augment: AugmentConfig | None = AugmentConfig(),  # noqa: B008 (frozen)
        sentences: int = 4,
        absent_fraction: float = 0.25,
        swapped_fraction: float = 0.0,
        place_fraction: float = 0.0,
        exams_per_step: int = 1,
        validation_fraction: float = 0.1,
        splits: Path | None = None,
        min_confidence: float = 0.0,
        cache: Path | None = None,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        if sentences < 1 or exams_per_step < 1:
            raise ConfigError("sentences and exams_per_step must be at least 1")
        if not 0 <= absent_fraction < 1:
            raise ConfigError(f"absent_fraction is {absent_fraction}", fix="a number from 0 to below 1")
        if not (0 <= swapped_fraction <= 1 and 0 <= place_fraction <= 1):
            raise ConfigError("swapped_fraction and place_fraction must lie in 0..1")
        self.work = Path(work)
        self.grid: GridSpec | None = None  # the model's, unless set
        self.augment = augment
        self.sentences = sentences
        self.absent_fraction = absent_fraction
        self.swapped_fraction = swapped_fraction
        self.place_fraction = place_fraction
        self.exams_per_step = exams_per_step
        self.validation_fraction = validation_fraction
        self.splits_file = splits
        self.min_confidence = min_confidence
        self.cache = Path(cache) if cache is not None else self.work / "cache"
        self.workers = workers
        self.seed = seed
        self.split: Splits = {}
        self.exams: dict[str, Exam] = {}
        self._keys: dict[str, str] = {}

    @property
    def model_grid(self) -> GridSpec:
        """The grid in use: `self.grid`, else that of the model that is trained."""
        if self.grid is not None:
            return self.grid
        module = self.trainer.lightning_module if self.trainer is not None else None
        grid = getattr(module, "grid", None)
        if not isinstance(grid, GridSpec):
            raise ConfigError("these data have no grid", fix="set data.grid, or train a model that has one")
        return grid

    def prepare_data(self) -> None:
        """Puts every exam on the model's grid, once, on one process."""
        for exam in read_exams(self.work, min_confidence=self.min_confidence):
            load_exam(self.work, exam, self.model_grid, self.cache / "grids")

    def setup(self, stage: str) -> None:
        """Reads the tables and splits by patient; writes splits.json into the run's folder when training."""
        if not self.exams:
            found = read_exams(self.work, min_confidence=self.min_confidence)
            self.exams = {exam.exam_id: exam for exam in found}
            self._keys = {exam.exam_id: cache_key(self.work, exam, self.model_grid) for exam in found}
            patients = {exam.exam_id: exam.patient_id for exam in found}
            self.split = (
                read_splits(self.splits_file, patients)
                if self.splits_file is not None
                else split_patients(patients, validation=self.validation_fraction, seed=self.seed)
            )
            if not self.split["train"]:
                raise InputError("no exam is left to train on", fix="lower validation_fraction or add exams")
            _log.info("%d exams train, %d validate", len(self.split["train"]), len(self.split["val"]))
        trainer = self.trainer
        if stage == "fit" and trainer is not None and trainer.is_global_zero and trainer.log_dir:
            write_splits(Path(trainer.log_dir) / "splits.json", self.split)

    def prompts(self) -> list[str]:
        """Every distinct sentence that may be asked for."""
        examples = [example for exam in self.exams.values() for example in exam.examples]
        words = {example.prompt for example in examples}
        if self.place_fraction:
            words |= {example.place_words for example in examples}
        if self.swapped_fraction:
            words |= {swap_sides(word) for word in words}
        return sorted(words)

    def train_dataloader(self) -> DataLoader[Item]:
        """Exams in a new order each epoch; what is random in one hangs on seed, epoch and exam alone."""
        dataset = self._dataset("train", training=True)
        sampler = EpochSampler(len(dataset), self.seed)
        return DataLoader(
            dataset,
            batch_size=min(self.exams_per_step, len(dataset)),
            sampler=sampler,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=_collate,
        )

    def val_dataloader(self) -> list[DataLoader[Item]]:
        """Whole exams with all their sentences; none when nobody validates."""
        dataset = self._dataset("val", training=False)
        if not len(dataset):
            return []
        return [DataLoader(dataset, batch_size=1, num_workers=self.workers, collate_fn=_collate)]

    def test_dataloader(self) -> list[DataLoader[Item]]:
        """The validating exams."""
        return self.val_dataloader()

    def _dataset(self, name: str, *, training: bool) -> ExamDataset:
        return ExamDataset(
            self.work,
            [self.exams[exam_id] for exam_id in self.split[name]],
            self.model_grid,
            self.cache / "grids",
            self._keys,
            sentences=self.sentences if training else None,
            absent_fraction=self.absent_fraction,
            swapped_fraction=self.swapped_fraction,
            place_fraction=self.place_fraction if training else 0.0,
            augment=Augment(self.augment) if training and self.augment is not None else None,
            seed=self.seed,
        )


class ExamDataset(Dataset[Item]):
    """Item (epoch, n): {"exam_id", "image" [2, Z, Y, X], "sentences" of S, "target" [S, Z, Y, X]}.

    With `sentences` None: all sentences of the exam, no absent ones, nothing random.
    """

    def __init__(
        self,
        work: Path,
        exams: Sequence[Exam],
        grid: GridSpec,
        folder: Path,
        keys: Mapping[str, str],
        *,
        sentences: int | None,
        absent_fraction: float = 0.0,
        swapped_fraction: float = 0.0,
        place_fraction: float = 0.0,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        self.work, self.exams, self.grid, self.folder, self.keys = work, list(exams), grid, folder, keys
        self.sentences, self.absent_fraction, self.augment, self.seed = sentences, absent_fraction, augment, seed
        self.swapped_fraction, self.place_fraction = swapped_fraction, place_fraction
        self._all = [example for exam in self.exams for example in exam.examples]

    def __len__(self) -> int:
        return len(self.exams)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        exam = self.exams[number]
        rng = np.random.default_rng((self.seed, epoch, number))
        loaded = load_exam(self.work, exam, self.grid, self.folder, key=self.keys[exam.exam_id])
        present, absent = self._choose(rng, exam)
        targets = [loaded.target(which) for which in present]
        targets += [np.zeros(loaded.image.shape[1:], dtype=np.float32)] * len(absent)
        image, target = torch.from_numpy(loaded.image), torch.from_numpy(np.stack(targets))
        if self.augment is not None:
            image, target = self.augment(image, target, seed=int(rng.integers(2**31)))
        sentences = [self._words(rng, exam.examples[which]) for which in present] + absent
        return {"exam_id": exam.exam_id, "image": image, "sentences": sentences, "target": target}

    def _words(self, rng: np.random.Generator, example: Example) -> str:
        short = self.place_fraction > 0 and rng.random() < self.place_fraction
        return example.place_words if short else example.prompt

    def _choose(self, rng: np.random.Generator, exam: Exam) -> tuple[list[int], list[str]]:
        """Which of the exam's examples, and sentences about what it has not."""
        if self.sentences is None:
            return list(range(len(exam.examples))), []
        here = {example.place for example in exam.examples}
        # an unknown place could be anywhere: only sentences whose place is known can be known to be absent
        elsewhere = [e for e in self._all if e.site and e.place not in here]
        mirrored = [e for e in exam.examples if e.site and e.mirrored not in (None, *here)]
        wanted = round(self.sentences * self.absent_fraction) if elsewhere else 0
        order = [int(n) for n in rng.permutation(len(exam.examples))][: self.sentences - wanted]
        missing = self.sentences - len(order)
        if not elsewhere:
            return order + [order[n % len(order)] for n in range(missing)], []
        absent = []
        for _ in range(missing):
            if mirrored and rng.random() < self.swapped_fraction:
                absent.append(swap_sides(self._words(rng, mirrored[int(rng.integers(len(mirrored)))])))
            else:
                absent.append(self._words(rng, elsewhere[int(rng.integers(len(elsewhere)))]))
        return order, absent


class EpochSampler(Sampler[Any]):
    """(epoch, index) pairs in an order that hangs on seed and epoch; Lightning calls `set_epoch`, also on resume."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(number)) for number in order])


def _collate(items: Sequence[Item]) -> Item:
    """{"exam_id": [B], "image" [B, 2, Z, Y, X], "sentences": [B][S], "target" [B, S, Z, Y, X]}."""
    return {
        "exam_id": [item["exam_id"] for item in items],
        "image": torch.stack([item["image"] for item in items]),
        "sentences": [item["sentences"] for item in items],
        "target": torch.stack([item["target"] for item in items]),
    }
