"""Exams and their sentences for training: one encoder pass serves several sentences, some about nothing there."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from rich.console import Console
from torch.utils.data import DataLoader

from petground.labeling.errors import ConfigError, InputError
from petground.pipeline.progress import progress
from petground.pipeline.prompts import PromptMode
from petground.pipeline.schemas import read_table
from petground.pipeline.splits import Splits, read_splits, split_patients, write_splits
from petground.training.augment import Augment, AugmentConfig
from petground.training.cache import is_on_grid, on_grid, put_on_grid
from petground.training.dataset import EpochSampler, ExamDataset, Item, ShareSampler, collate
from petground.training.digests import Digests
from petground.training.grid import GridSpec
from petground.training.work import Exam, read_exams, swap_sides

__all__ = ["ExamDataset", "GroundingData"]

_log = logging.getLogger(__name__)


class GroundingData(pl.LightningDataModule):
    """Reads what `petground label` wrote.

    Args:
        work: the WORK folder: exams.parquet, labels.parquet and the files they name.
        augment: how far training exams are changed; null turns it off.
        sentences: sentences decoded per exam in a training step, from one encoder pass.
        absent_fraction: share of them that are other exams' sentences about a place where this exam's report tells
            of no lesion, or what this report denies (docs/training.md); their target is empty. They teach the model to
            read, and to say no; in validation the same share counts false alarms.
        swapped_fraction: share of the absent ones that are the exam's own sentences with left and right exchanged.
        place_fraction: share of all sentences that are cut down to side and site, so that the words that tell the
            place are learnt whatever stands around them.
        unlabelled_fraction: share of an epoch's exams that have no label, and teach by what their report denies alone:
            normal scans among them (`petground label --unlabelled-exams`). Others are drawn in each epoch; none
            validates. 0 leaves them out.
        exams_per_step: exams in a training step of one device.
        validation_fraction: share of the patients that validate.
        test_fraction: share of the patients that neither train nor validate; `petground evaluate` measures on them.
        splits: a splits.json of an earlier run instead.
        min_confidence: labels below are not used.
        prompt: what the model reads of a finding: its words alone, from which every SUV and slice was cut out, or with
            the reported SUVmax, slice number or both behind them in one fixed wording: words, words+suv, words+slice,
            all. The checkpoint keeps it, and is asked in the same way. What is absent is asked with another's values.
        foreground_fraction: with patches, the share of them that is laid around the finding of one of the sentences;
            the others lie anywhere.
        cache: folder of exams on the model's grid and of sentences' token states; WORK/cache by default.
        workers: loader processes, in training and when exams are put on the grid; 0 loads in the main process.
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
        unlabelled_fraction: float = 0.0,
        exams_per_step: int = 1,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        splits: Path | None = None,
        min_confidence: float = 0.0,
        prompt: PromptMode = "words",
        foreground_fraction: float = 0.67,
        cache: Path | None = None,
        workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        if sentences < 1 or exams_per_step < 1:
            raise ConfigError("sentences and exams_per_step must be at least 1")
        if workers < 0 or seed < 0:
            raise ConfigError("workers and seed must be 0 or more")
        if not 0 <= absent_fraction < 1:
            raise ConfigError(f"absent_fraction is {absent_fraction}", fix="a number from 0 to below 1")
        if not 0 <= unlabelled_fraction < 1:
            raise ConfigError(f"unlabelled_fraction is {unlabelled_fraction}", fix="a number from 0 to below 1")
        if not (0 <= swapped_fraction <= 1 and 0 <= place_fraction <= 1):
            raise ConfigError("swapped_fraction and place_fraction must lie in 0..1")
        if not 0 <= foreground_fraction <= 1:
            raise ConfigError(f"foreground_fraction is {foreground_fraction}", fix="a number from 0 to 1")
        self.work = Path(work)
        self.grid: GridSpec | None = None  # the model's, unless set
        self.augment = augment
        self.sentences = sentences
        self.absent_fraction = absent_fraction
        self.swapped_fraction = swapped_fraction
        self.place_fraction = place_fraction
        self.unlabelled_fraction = unlabelled_fraction
        self.exams_per_step = exams_per_step
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.splits_file = splits
        self.min_confidence = min_confidence
        self.prompt: PromptMode = prompt
        self.foreground_fraction = foreground_fraction
        self.cache = Path(cache) if cache is not None else self.work / "cache"
        self.workers = workers
        self.seed = seed
        self.split: Splits = {}
        self.exams: dict[str, Exam] = {}
        self._keys: dict[str, str] = {}
        self.taken = (0, 0)  # by an earlier fit that stopped within an epoch: which epoch, how many steps of it

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
        """Puts every exam on the model's grid, once, by `workers` processes."""
        grids, digests = self.cache / "grids", self._digests()
        exams = [exam for exam in self._exams() if not is_on_grid(self.work, exam, self.model_grid, grids, digests)]
        if exams:
            with progress(Console(stderr=True)) as tick:
                put_on_grid(self.work, exams, self.model_grid, grids, digests, workers=self.workers, tick=tick)

    def setup(self, stage: str) -> None:
        """Reads the tables and splits by patient; writes splits.json into the run's folder when training."""
        if not self.exams:
            found = self._on_grid(self._exams())
            self.exams = {exam.exam_id: exam for exam in found}
            self.split = self._own_split(found) if self.splits_file is None else self._given_split(self.splits_file)
            if not self._part("train", labelled=True):
                raise InputError("no exam is left to train on", fix="lower validation_fraction or add exams")
            _log.info(
                "%d exams train, %d validate", *(len(self._part(part, labelled=True)) for part in ("train", "val"))
            )
            if self.unlabelled_fraction:
                self._tell_unlabelled()
        trainer = self.trainer
        folder = trainer.log_dir if stage == "fit" and trainer is not None else None  # asks all processes: not of one
        if folder and trainer.is_global_zero:
            write_splits(Path(folder) / "splits.json", self.split)

    def _exams(self) -> list[Exam]:
        return read_exams(
            self.work,
            min_confidence=self.min_confidence,
            prompt=self.prompt,
            unlabelled=self.unlabelled_fraction > 0,
        )

    def _on_grid(self, exams: Sequence[Exam]) -> list[Exam]:
        """Exams with the labels that lie on the model's grid; those without any are left out, and it is told."""
        found, digests = [], self._digests()
        for whole in exams:
            exam, key = on_grid(self.work, whole, self.model_grid, self.cache / "grids", digests.of)
            self._keys[whole.exam_id] = key
            for lost in sorted({e.finding_id for e in whole.examples} - {e.finding_id for e in exam.examples}):
                _log.warning("%s: label %s lies outside the model's grid and is left out", exam.exam_id, lost)
            if exam.examples or not whole.examples:
                found.append(exam)
        digests.save()
        return found

    def _digests(self) -> Digests:
        """Of WORK's files, as earlier starts found them: an image that is as it was is not read again."""
        return Digests(self.cache / "digests.json")

    def _own_split(self, exams: Sequence[Exam]) -> Splits:
        """By patient, of those with labels as if there were no others; of the others, who judge nothing, none
        validates."""
        labelled = {exam.exam_id: exam.patient_id for exam in exams if exam.examples}
        split = split_patients(labelled, validation=self.validation_fraction, seed=self.seed, test=self.test_fraction)
        part_of = {labelled[exam]: part for part, members in split.items() for exam in members}
        bare = {exam.exam_id: exam.patient_id for exam in exams if not exam.examples}
        others = {exam: patient for exam, patient in bare.items() if patient not in part_of}
        more = split_patients(others, validation=0.0, seed=self.seed, test=self.test_fraction)
        for exam in bare.keys() - others.keys():
            more[part_of[bare[exam]]].append(exam)
        return {part: sorted([*members, *more[part]]) for part, members in split.items()}

    def _given_split(self, path: Path) -> Splits:
        """An earlier split, less the exams that have lost their last label since, in review say."""
        rows = read_table(self.work / "exams.parquet", "exams")
        split = read_splits(path, {row["exam_id"]: row["patient_id"] or row["exam_id"] for row in rows})
        kept = {name: [exam for exam in exams if exam in self.exams] for name, exams in split.items()}
        lost = sum(map(len, split.values())) - sum(map(len, kept.values()))
        if lost:
            _log.warning("%d exams of %s have no label to use and are left out", lost, path.name)
        return kept

    @property
    def keys(self) -> dict[str, str]:
        """Of each exam in use the hash of its images and masks on the model's grid."""
        return {exam: self._keys[exam] for exam in self.exams}

    def prompts(self) -> list[str]:
        """Every distinct sentence that may be asked for."""
        examples = [example for exam in self.exams.values() for example in exam.examples]
        words = {example.prompt for example in examples}
        denied = {sentence for exam in self.exams.values() for sentence in exam.negated}
        if self.place_fraction:
            words |= {example.place_words for example in examples}
        if self.swapped_fraction:
            words |= {swap_sides(word) for word in words}
        return sorted(words | denied)

    def train_dataloader(self) -> DataLoader[Item]:
        """Exams in a new order each epoch; what is random in one depends on seed, epoch and exam alone."""
        dataset = self._dataset("train", training=True)
        rank, processes = self._process()
        drawn = self._drawn()
        count = len(dataset) - drawn[0] + drawn[1]
        step = min(self.exams_per_step, count // processes)
        if 0 < step < self.exams_per_step:
            told = "%d exams train on %d devices: exams_per_step is %d here, not %d"
            _log.warning(told, count, processes, step, self.exams_per_step)
        if not step:
            raise ConfigError(f"{count} exams train on {processes} devices", fix="take fewer --trainer.devices")
        sampler = EpochSampler(
            len(dataset), self.seed, rank=rank, processes=processes, step=step, drawn=drawn, taken=self.taken
        )
        return DataLoader(
            dataset,
            batch_size=step,
            sampler=sampler,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=collate,
        )

    def val_dataloader(self) -> list[DataLoader[Item]]:
        """Whole exams with all their sentences and some absent ones; none when nobody validates."""
        dataset = self._dataset("val", training=False)
        if not len(dataset):
            return []
        rank, processes = self._process()
        sampler = ShareSampler(len(dataset), rank=rank, processes=processes) if processes > 1 else None
        # one exam ahead whatever `workers` says: with all its targets it is large
        ahead: dict[str, int] = {"num_workers": 1, "prefetch_factor": 1} if self.workers else {}
        return [DataLoader(dataset, batch_size=1, sampler=sampler, collate_fn=collate, **ahead)]

    def _process(self) -> tuple[int, int]:
        """Which of how many training processes this is."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _part(self, name: str, *, labelled: bool) -> list[Exam]:
        """Of a part of the split the exams with labels, or those without."""
        return [exam for exam in map(self.exams.__getitem__, self.split[name]) if bool(exam.examples) == labelled]

    def _tell_unlabelled(self) -> None:
        """How many come in an epoch; raises where there is none, of which nobody would know."""
        there, come = self._drawn()
        if not there:
            raise ConfigError(
                "unlabelled_fraction is given, and no exam without a label can train",
                fix="label with --unlabelled-exams; a splits.json of a run without them has none; where sentences tell "
                "slices (--data.prompt) denials do not teach",
            )
        share = come / (come + len(self._part("train", labelled=True)))
        told = "%d exams without a label can train: %d in an epoch, a share of %.2f"
        _log.log(logging.WARNING if share < self.unlabelled_fraction / 2 else logging.INFO, told, there, come, share)

    def _drawn(self) -> tuple[int, int]:
        """How many exams without a label could train, and how many of them come in an epoch."""
        bare = len(self._part("train", labelled=False))
        share = self.unlabelled_fraction / (1.0 - self.unlabelled_fraction)
        return bare, min(bare, math.ceil(share * len(self._part("train", labelled=True))))

    def _dataset(self, name: str, *, training: bool) -> ExamDataset:
        augment, parts = None, ("train",) if training else ("train", "val")
        if training and self.augment is not None:
            augment = Augment(self.augment, suv_told=self.prompt in ("words+suv", "all"))
        return ExamDataset(
            self.work,
            self._part(name, labelled=True) + (self._part(name, labelled=False) if training else []),
            self.model_grid,
            self.cache / "grids",
            self._keys,
            # few exams validate: what is absent in one is drawn from those that train, too
            pool=[example for part in parts for exam in self.split[part] for example in self.exams[exam].examples],
            sentences=self.sentences if training else None,
            absent_fraction=self.absent_fraction,
            swapped_fraction=self.swapped_fraction,
            place_fraction=self.place_fraction if training else 0.0,
            augment=augment,
            foreground_fraction=self.foreground_fraction,
            seed=self.seed,
        )
