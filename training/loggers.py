"""Where a run's curves go: CSV and TensorBoard in its folder, and MLflow where it is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from petground.labeling.errors import ConfigError

__all__ = ["MlflowConfig", "run_loggers"]

_OF_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class MlflowConfig:
    """Metrics and the model's settings go to MLflow, too: no report text, no exam ids, of files their names alone.

    Args:
        experiment: its name there.
        tracking_uri: of the server or store, e.g. http://mlflow:5000; MLFLOW_TRACKING_URI by default, else the folder
            mlruns in the run's folder.
        run_name: null: MLflow makes one up.
    """

    experiment: str = "petground"
    tracking_uri: str | None = None
    run_name: str | None = None


def run_loggers(root: Path, mlflow: MlflowConfig | None, settings: dict[str, Any]) -> list[Logger]:
    """settings: what MLflow shows as the run's parameters. Raises ConfigError when MLflow is asked for and not here."""
    table = CSVLogger(root, name="", flush_logs_every_n_steps=20)
    loggers: list[Logger] = [table, TensorBoardLogger(root, name="", version=f"version_{table.version}")]
    if mlflow is None:
        return loggers
    place = mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or (root / "mlruns").resolve().as_uri()
    try:
        tracker = MLFlowLogger(mlflow.experiment, run_name=mlflow.run_name, tracking_uri=place)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "MLflow is not installed", fix="pip install 'petground[mlflow]', or leave out --mlflow"
        ) from error
    tracker.log_hyperparams(_without_folders(settings))
    return [*loggers, tracker]


def _without_folders(value: Any) -> Any:
    """The settings with the last name alone of each path: folders can be named after projects, users and patients.

    "name/name" that is not here is a model of the Hugging Face hub, and is kept.
    """
    if isinstance(value, Mapping):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(one) for one in value]
    if not isinstance(value, (str, os.PathLike)):
        return value
    text = os.fspath(value)
    here = isinstance(value, os.PathLike) or Path(text).exists()
    if not re.search(r"[/\\]", text) or (_OF_HUB.fullmatch(text) and not here):
        return text
    return PureWindowsPath(text).name or text  # it takes both kinds of slashes
