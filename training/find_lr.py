"""Learning-rate range test (Smith, arXiv 1506.01186, section 3.3): the loss while the learning rate rises."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.tuner import Tuner

from petground.labeling.errors import ConfigError
from petground.pipeline.files import write_json

__all__ = ["find_lr"]

LOWEST, HIGHEST = 1e-6, 1.0
FEWEST, LEFT_OUT = 20, 10


def find_lr(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, steps: int, folder: Path
) -> float | None:
    """Trains `steps` steps with a learning rate from LOWEST to HIGHEST, puts the weights back, and tells what it saw.

    Writes lr_find.png and lr_find.json into `folder`. None when the loss did not fall anywhere. A trained text encoder
    gets the same learning rate as the network here. Raises ConfigError for too few steps.
    """
    if steps < FEWEST:
        raise ConfigError(f"--find_lr {steps} is too few", fix=f"{FEWEST} steps or more; 100 is usual")
    trainer.callbacks[:] = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    finder = Tuner(trainer).lr_find(
        module, datamodule=data, min_lr=LOWEST, max_lr=HIGHEST, num_training=steps, update_attr=False
    )
    if finder is None or not trainer.is_global_zero:
        return None
    rates, losses = finder.results["lr"], [float(loss) for loss in finder.results["loss"]]
    found = finder.suggestion()
    judged = losses[LEFT_OUT:]  # as Lightning's suggestion does
    best = None if found is None or min(judged) >= judged[0] else float(found)
    kept = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if np.isfinite(loss)]
    write_json(folder / "lr_find.json", {"suggestion": best, "lr": [r for r, _ in kept], "loss": [x for _, x in kept]})
    _plot(folder / "lr_find.png", kept, best)
    said = "the loss fell nowhere: try more steps" if best is None else f"suggested: --model.optimizer.lr {best:.1e}"
    sys.stdout.write(f"{said}  (smoothed loss over the learning rate: {folder / 'lr_find.png'})\n")
    return best


def _plot(path: Path, points: Sequence[tuple[float, float]], best: float | None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates, losses = np.array(points).T
    axes.semilogx(rates, losses, color="#1b6ca8")
    low = float(losses.min())
    axes.set_ylim(low - 0.1 * abs(low), min(float(losses.max()), 2 * float(losses[0])) + 0.1 * abs(low))
    if best is not None:
        axes.axvline(best, color="#d1495b", linestyle="--", label=f"steepest fall: {best:.1e}")
        axes.legend(frameon=False)
    axes.set(xlabel="learning rate", ylabel="loss (smoothed)")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
