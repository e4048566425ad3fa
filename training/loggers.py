"""Where a run's curves go: CSV and TensorBoard in its folder, and MLflow where it is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from petground.labeling.errors import ConfigError

__all__ = ["MlflowConfig", "run_loggers"]


@dataclass(frozen=True)
class MlflowConfig:
    """Metrics and the model's settings go to MLflow, too: no report text, no exam ids, no paths.

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
    tracker.log_hyperparams(settings)
    return [*loggers, tracker]
