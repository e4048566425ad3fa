"""Items to learn from: an exam on the model's grid, or a patch of it, with sentences, some about what it has not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from petground.labeling.places import may_be_here
from petground.training.augment import Augment
from petground.training.cache import GridExam, load_exam
from petground.training.grid import GridSpec
from petground.training.patches import box_of, draw_start, in_image, moved_box
from petground.training.work import Exam, Example, swap_sides

__all__ = ["EpochSampler", "ExamDataset", "Item", "ShareSampler", "collate"]

Item = Mapping[str, Any]
NEGATED = 0.2  # share of an exam's absent sentences that its report denies itself, where it denies any


class ExamDataset(Dataset[Item]):
    """Item (epoch, n): {"exam_id", "image" [2, Z, Y, X], "sentences" of S, "target" [S, Z, Y, X], "present" [S]}.

    present: 1 when the sentence's finding lies in the image, 0 when the exam has it not, NaN when it lies outside of
    what the image shows, as a patch of the exam or as augmentation moved it (its target is empty all the same).
    With `sentences` None: all sentences of the exam and absent ones in their share, the same at every epoch.
    When the grid has patches, a training item is a patch, and has besides:
    "box" [2, 3], where it lies in the exam (`patches.box_of`).
    A validating item is the whole exam; its target is float16, for it is large.
    pool: examples whose sentences may be absent ones; those of the exams by default.
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
        pool: Sequence[Example] | None = None,
        absent_fraction: float = 0.0,
        swapped_fraction: float = 0.0,
        place_fraction: float = 0.0,
        augment: Augment | None = None,
        foreground_fraction: float = 0.67,
        seed: int = 0,
    ):
        self.work, self.exams, self.grid, self.folder, self.keys = work, list(exams), grid, folder, keys
        self.sentences, self.absent_fraction, self.augment, self.seed = sentences, absent_fraction, augment, seed
        self.swapped_fraction, self.place_fraction = swapped_fraction, place_fraction
        self.foreground_fraction = foreground_fraction
        self._pool = list(pool if pool is not None else (e for exam in self.exams for e in exam.examples))
        self._places = {example.place for example in self._pool if example.site}

    def __len__(self) -> int:
        return len(self.exams)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        if number < 0:
            return {"exam_id": None, "sentences": []}
        exam = self.exams[number]
        # a validating exam is asked the same at every epoch, and whichever exams validate beside it
        drawn = (self.seed, epoch, number) if self.sentences else (self.seed, zlib.crc32(exam.exam_id.encode()))
        rng = np.random.default_rng(drawn)
        loaded = load_exam(self.work, exam, self.grid, self.folder, key=self.keys[exam.exam_id])
        present, absent = self._choose(rng, exam)
        if self.grid.patch_zyx is not None:
            return self._patch(rng, exam, loaded, present, absent)
        image = torch.from_numpy(loaded.image)
        target = torch.zeros(len(present) + len(absent), *image.shape[1:], dtype=self._kind)
        for row, which in zip(target, present, strict=False):
            row.copy_(torch.from_numpy(loaded.target(which)))
        if self.augment is not None:
            image, target = self.augment(image, target, seed=int(rng.integers(2**31)))
        sentences = [self._words(rng, exam.examples[which]) for which in present] + absent
        return {
            "exam_id": exam.exam_id,
            "image": image,
            "sentences": sentences,
            "target": target,
            "present": _present(target, len(present)),
        }

    @property
    def _kind(self) -> torch.dtype:
        return torch.float16 if self.sentences is None else torch.float32

    def _patch(
        self, rng: np.random.Generator, exam: Exam, loaded: GridExam, present: Sequence[int], absent: Sequence[str]
    ) -> Item:
        """A patch of the exam with its sentences; all of it where everything is asked, in validation."""
        whole: tuple[int, ...] = loaded.image.shape[1:]
        size = whole if self.sentences is None else tuple(self.grid.patch_zyx or whole)
        start: tuple[int, ...] = (0, 0, 0)
        if self.sentences is not None:
            around = present and rng.random() < self.foreground_fraction
            finding = loaded.voxels(present[int(rng.integers(len(present)))]) if around else None
            start = draw_start(rng, whole, size, finding)
        margin = (0, 0, 0) if self.augment is None else self.augment.margin(size)
        first = [begin - more for begin, more in zip(start, margin, strict=True)]
        outer = [length + 2 * more for length, more in zip(size, margin, strict=True)]
        image = torch.from_numpy(loaded.image_part(first, outer))
        target = torch.zeros(len(present) + len(absent), *outer, dtype=self._kind)
        for row, which in zip(target, present, strict=False):
            row.copy_(torch.from_numpy(loaded.target_part(which, first, outer)))
        box = box_of(start, size, whole)
        if self.augment is not None:
            image, target, matrix = self.augment.moved(image, target, seed=int(rng.integers(2**31)))
            box = moved_box(box, size, matrix)
        inner = (slice(None), *(slice(more, more + length) for more, length in zip(margin, size, strict=True)))
        image, target = image[inner].contiguous(), target[inner].contiguous()
        return {
            "exam_id": exam.exam_id,
            "image": image,
            "sentences": [self._words(rng, exam.examples[which]) for which in present] + list(absent),
            "target": target,
            "box": torch.from_numpy(box),
            "present": _present(target, len(present)),
        }

    def _words(self, rng: np.random.Generator, example: Example) -> str:
        short = self.place_fraction > 0 and rng.random() < self.place_fraction
        return example.place_words if short else example.prompt

    def _choose(self, rng: np.random.Generator, exam: Exam) -> tuple[list[int], list[str]]:
        """Which of the exam's examples, and sentences about what it has not."""
        if not exam.examples:  # all that is known is what its report denies: other places may have lesions
            order = rng.permutation(len(exam.negated)).tolist()
            return [], [exam.negated[order[n % len(order)]] for n in range(self.sentences or len(order))]
        elsewhere, mirrored = self._not_here(exam)
        can = bool(elsewhere or exam.negated or (mirrored and self.swapped_fraction))
        if self.sentences is None:
            share = len(exam.examples) * self.absent_fraction / (1.0 - self.absent_fraction)
            wanted = int(share + rng.random()) if can else 0  # rounded so that the share holds over the exams
            return list(range(len(exam.examples))), self._absent(rng, exam, elsewhere, mirrored, wanted)
        wanted = int(self.sentences * self.absent_fraction + rng.random()) if can else 0
        order = [int(n) for n in rng.permutation(len(exam.examples))]
        # an exam with few findings says them again, in other words where it can (`place_fraction`)
        order = [order[n % len(order)] for n in range(self.sentences - wanted)]
        return order, self._absent(rng, exam, elsewhere, mirrored, wanted)

    def _not_here(self, exam: Exam) -> tuple[list[Example], list[Example]]:
        """Examples of the pool whose place the report does not tell of, and own ones whose other side it does not.

        An unknown place could be anywhere: only sentences whose place is known can be known to be absent.
        """
        here = {example.place for example in exam.examples} | set(exam.told)
        nowhere = {place for place in self._places if not may_be_here(place, here)}
        elsewhere = [e for e in self._pool if e.site and e.place in nowhere]
        return elsewhere, [e for e in exam.examples if e.site and e.mirrored and not may_be_here(e.mirrored, here)]

    def _absent(
        self,
        rng: np.random.Generator,
        exam: Exam,
        elsewhere: Sequence[Example],
        mirrored: Sequence[Example],
        count: int,
    ) -> list[str]:
        """Sentences about nothing here: denied by the report, of the other side, or of other exams."""
        absent = []
        others = bool(elsewhere or (mirrored and self.swapped_fraction))
        for _ in range(count):
            if exam.negated and (not others or rng.random() < NEGATED):
                absent.append(exam.negated[int(rng.integers(len(exam.negated)))])
            elif mirrored and (not elsewhere or rng.random() < self.swapped_fraction):
                absent.append(swap_sides(self._words(rng, mirrored[int(rng.integers(len(mirrored)))])))
            else:
                absent.append(self._words(rng, elsewhere[int(rng.integers(len(elsewhere)))]))
        return absent


def _present(target: torch.Tensor, asked: int) -> torch.Tensor:
    """[S] of a target [S, Z, Y, X] whose first `asked` sentences tell of findings that the exam has."""
    held = [in_image(one.numpy()) for one in target[:asked]]
    return torch.tensor(held + [0.0] * (len(target) - asked))


class EpochSampler(Sampler[Any]):
    """(epoch, index) pairs in an order that depends on seed and epoch; Lightning calls `set_epoch`, also on resume.

    Of `processes` this is the `rank`-th: together their steps take the same exams as one process whose steps are
    `processes` times as large. What does not fill a step of all is left out. drawn: of the last so many indices so many
    come in an epoch, others in each. taken: an epoch and its steps that an earlier fit took; they do not come again.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        *,
        rank: int = 0,
        processes: int = 1,
        step: int = 1,
        drawn: tuple[int, int] = (0, 0),
        taken: tuple[int, int] = (0, 0),
    ):
        self.length, self.seed, self.epoch = length - drawn[0] + drawn[1], seed, 0
        self.drawn = drawn
        self.rank, self.processes, self.step, self.taken = rank, processes, step, taken

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // (self.processes * self.step) * self.step

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng((self.seed, self.epoch))
        always = self.length - self.drawn[1]
        some = rng.permutation(self.drawn[0])[: self.drawn[1]] if self.drawn[1] else np.arange(0)
        order = rng.permutation(np.concatenate([np.arange(always), always + some]))
        steps = order[: len(self) * self.processes].reshape(-1, self.processes, self.step)
        first = self.taken[1] if self.epoch == self.taken[0] else 0
        return iter([(self.epoch, int(number)) for number in steps[first:, self.rank].reshape(-1)])


class ShareSampler(Sampler[Any]):
    """Every index once over all processes, as many for each; -1 (`ExamDataset`: nothing) where one has less."""

    def __init__(self, length: int, *, rank: int = 0, processes: int = 1):
        self.length, self.rank, self.processes = length, rank, processes

    def __len__(self) -> int:
        return (self.length + self.processes - 1) // self.processes

    def __iter__(self) -> Iterator[int]:
        return (n if n < self.length else -1 for n in range(self.rank, len(self) * self.processes, self.processes))


def collate(items: Sequence[Item]) -> Item:
    """{"exam_id": [B], "image" [B, 2, Z, Y, X], "sentences": [B][S], "target" [B, S, Z, Y, X], "present" [B, S]}.

    Of patches also "box" [B, 2, 3].
    """
    stacked = [name for name in ("image", "target", "box", "present") if name in items[0]]
    return {
        "exam_id": [item["exam_id"] for item in items],
        "sentences": [item["sentences"] for item in items],
        **{name: torch.stack([item[name] for item in items]) for name in stacked},
    }
