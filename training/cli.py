"""`petground train`: LightningCLI over the module and the data, typed and checked; every Lightning flag works."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from petground.kernels.memory import reuse_memory
from petground.labeling.errors import ConfigError
from petground.models.registry import BlockError
from petground.models.text.encoder import TextEncoderError
from petground.training.callbacks import default_callbacks
from petground.training.checkpoints import WholeFiles, read_checkpoint
from petground.training.data import GroundingData
from petground.training.ema import moving_average
from petground.training.find_lr import find_lr
from petground.training.loggers import MlflowConfig, run_loggers
from petground.training.module import GroundingModule
from petground.training.runtime import default_precision, use_threads

__all__ = ["TrainCLI", "main"]

USAGE = 2
_ABOUT = (
    "Fits a grounding model on what `petground label` wrote: fit --config NAME --data.work WORK --run_dir RUN. NAME is "
    "a YAML file or a shipped config (demo, contextual_net_3d, ours, projections, llmseg; sgd on top of one); RUN gets "
    "checkpoints, logs and the run's settings."
)
_ELSEWHERE = {
    "validate": "a run's validating exams are measured by petground evaluate --split val --labels WORK "
    "--checkpoint CKPT --out DIR",
    "test": "what the run did not see is measured by petground evaluate --labels WORK --checkpoint CKPT --out DIR",
    "predict": "an exam is answered by petground ground --exam EXAM --checkpoint CKPT --report FILE --out DIR",
}
_STOPPED = "stopped; with --ckpt_path last the same command goes on from the last checkpoint"
_FLAG = re.compile(r"--([A-Za-z_][\w.]*)")
_LONG_USAGE = re.compile(r"\Ausage:.*?(?=^(?:tip|error):)", re.DOTALL | re.MULTILINE)  # a hundred lines of flags
_UNKNOWN = re.compile(r"(?:[Uu]nrecognized arguments:|Key '|Group '|option ')\s*'?(?:--)?([\w.]+)")
_UNKNOWN_IN = re.compile(
    r"Parser key \"(?P<group>[\w.]+)\":.*?class_path '(?P<kind>[\w.]+)':\s+Option '(?P<option>\w+)' is not accepted",
    re.DOTALL,
)  # of a group that may be null


class _Done(Exception):  # noqa: N818 (no error)
    """What was asked for is done, and it was not a training."""


class TrainCLI(LightningCLI):
    """A run's folder is the trainer's default_root_dir: checkpoints/{best,last}.ckpt, and version_N for each attempt
    with metrics.csv, TensorBoard events, config.yaml, splits.json and run.json."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, less those that other commands do better."""
        return {name: said for name, said in LightningCLI.subcommands().items() if name not in _ELSEWHERE}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Flags of the whole training that are neither the model's, the data's nor the trainer's."""
        parser.add_argument(
            "--early_stop", type=int | None, default=None, help="stop when val/f1 rose in none of so many validations"
        )
        parser.add_argument(
            "--find_lr",
            type=bool | int,
            default=False,
            help="train nothing; try so many learning rates (true: 100) and suggest one: RUN/lr_find/lr_find.png",
        )
        parser.add_argument(
            "--mlflow", type=MlflowConfig | None, default=None, help="log to MLflow, too: --mlflow.experiment NAME"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """As Lightning's; what is unknown is answered with the nearest names."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                super().parse_arguments(parser, args)
        except SystemExit:
            message = _LONG_USAGE.sub("", said.getvalue())
            group = _UNKNOWN_IN.search(message)
            if group is None:
                sys.stderr.write(message + _nearest(_UNKNOWN.findall(message), self._known_flags()))
            else:
                sys.stderr.write(_nearest([f"{group['group']}.{group['option']}"], _options(group)))
            raise
        sys.stderr.write(said.getvalue())

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would lay the checkpoint's settings over the flags and files that the user gave."""

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds loggers and callbacks that the user did not give or turn off."""
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        root = Path(config.get("default_root_dir") or "runs")
        steps = self._steps_to_find_lr()
        if steps:
            root = root / "lr_find"
            kwargs |= {"logger": False, "enable_checkpointing": False, "max_epochs": -1, "max_steps": steps}
            config |= kwargs
        kwargs["default_root_dir"] = root
        if config.get("precision") is None:
            kwargs["precision"] = default_precision(config.get("accelerator", "auto"))
        kwargs["use_distributed_sampler"] = False  # the data share themselves out, epoch by epoch
        if config.get("logger") in (None, True) and not config.get("fast_dev_run"):
            kwargs["logger"] = run_loggers(root, self._get(self.config_init, "mlflow"), self._settings())
        given = config.get("callbacks") or []
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        ours = [*self._asked_for(), *default_callbacks(root, validated=self._validated(config))]
        kwargs["callbacks"] = given + [one for one in ours if _wanted(one, given, config)]
        plugins = config.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
        if not any(isinstance(one, CheckpointIO) for one in plugins):
            kwargs["plugins"] = [*plugins, WholeFiles()]
        return super().instantiate_trainer(**kwargs)

    def _steps_to_find_lr(self) -> int:
        asked = self._get(self.config_init, "find_lr")
        if asked is not True and int(asked or 0) < 0:
            raise ConfigError(f"find_lr is {asked}", fix="true, or how many learning rates to try")
        return 100 if asked is True else int(asked or 0)

    def _asked_for(self) -> list[Callback]:
        """Callbacks that stand for a setting."""
        callbacks: list[Callback] = []
        patience = self._get(self.config_init, "early_stop")
        if patience is not None:
            trainer = self._get(self.config_init, "trainer", default={})
            if patience < 1 or not self._validated(trainer):
                raise ConfigError(
                    "early_stop counts validations in which val/f1 did not rise, and there are none to count",
                    fix="give a number of 1 or more, and validate (--data.validation_fraction)",
                )
            callbacks.append(EarlyStopping("val/f1", mode="max", patience=patience))
        model = self._get(self.config_init, "model")
        decay = getattr(getattr(model, "optimizer_config", None), "ema", 0.0)
        return [*callbacks, moving_average(decay)] if decay else callbacks

    def _settings(self) -> dict[str, Any]:
        """The model's, for a logger that shows a run's parameters."""
        config = self._get(self.config, "model", default={})
        return config.as_dict() if hasattr(config, "as_dict") else dict(config)

    def before_fit(self) -> None:
        """Refuses to train over another training's checkpoints, and to go on from a file that is none."""
        config = self._get(self.config_init, "ckpt_path")
        trainer = self.trainer
        steps = self._steps_to_find_lr()
        if steps:
            find_lr(trainer, self.model, self.datamodule, steps, Path(trainer.default_root_dir))
            raise _Done
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if config is None and last.is_file() and not getattr(trainer, "fast_dev_run", False):
            raise ConfigError(
                f"{trainer.default_root_dir} already holds a training",
                fix="go on with --ckpt_path last, or give another --trainer.default_root_dir",
            )
        if config is not None and (config != "last" or last.is_file()):
            read_checkpoint(last if config == "last" else Path(config))

    def _validated(self, trainer: Mapping[str, Any]) -> bool:
        data = self._get(self.config_init, "data")
        if data is None or trainer.get("limit_val_batches") == 0:
            return False
        return data.splits_file is not None or data.validation_fraction > 0

    def _known_flags(self) -> list[str]:
        parsers = [self.parser, *getattr(self, "_subcommand_parsers", {}).values()]
        return sorted({name for parser in parsers for name in _FLAG.findall(parser.format_help())})


def main(argv: Sequence[str] | None = None) -> int:
    """`petground train fit --config FILE [--data.work DIR] [--run_dir DIR] [any Lightning flag]`.

    FILE may be the name of a shipped config, e.g. demo. `--run_dir` is short for `--trainer.default_root_dir`.
    `--ckpt_path last` goes on where the run stopped, and starts anew where there is nothing yet.

    Returns 0, or 2 for wrong usage. Raises PetgroundError for what the user can mend, and KeyboardInterrupt where it
    was stopped, by Ctrl-C or by SIGTERM as schedulers send it.
    """
    arguments = _expanded(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _ELSEWHERE:
        raise ConfigError(f"`petground train {arguments[0]}` is not there", fix=_ELSEWHERE[arguments[0]])
    reuse_memory()
    use_threads()
    try:
        with _quiet():
            TrainCLI(
                GroundingModule,
                GroundingData,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                auto_configure_optimizers=False,
                parser_kwargs={"prog": "petground train", "description": _ABOUT},
                args=arguments,
            )
    except _Done:
        return 0
    except (BlockError, TextEncoderError, MisconfigurationException) as error:
        raise ConfigError(str(error)) from error
    except SystemExit as end:  # the parser's own way of saying help (0) or wrong usage (2)
        # Lightning's ways of saying Ctrl-C and SIGTERM, after it closed its files; the second would be a success
        if end.code == 1 or isinstance(end, SIGTERMException):
            raise KeyboardInterrupt(_STOPPED) from end
        return USAGE if end.code else 0
    return 0


def _expanded(arguments: Sequence[str]) -> list[str]:
    """The arguments with shipped configs by path and our own short flags by Lightning's name."""
    out: list[str] = []
    for word in arguments:
        if word.split("=", 1)[0] in ("--run_dir", "--run-dir"):
            word = "--trainer.default_root_dir" + word[len("--run_dir") :]
        flag, _, value = word.partition("=")
        if flag in ("--config", "-c") and value:
            out.append(f"{flag}={_config_file(value)}")
        elif out and out[-1] in ("--config", "-c"):
            out.append(_config_file(word))
        else:
            out.append(word)
    return out


def _config_file(name: str) -> str:
    if Path(name).is_file():
        return name
    shipped = {Path(file.name).stem: file for file in files("petground.configs.train").iterdir()}
    shipped = {key: file for key, file in shipped.items() if file.name.endswith(".yaml")}
    if name in shipped:
        return str(shipped[name])
    near = difflib.get_close_matches(Path(name).stem, shipped, n=2, cutoff=0.5) or sorted(shipped)
    raise ConfigError(f"no config file {name}", fix=f"a file, or a shipped one: {', '.join(near)}")


def _wanted(callback: Callback, given: Sequence[Callback], config: dict[str, Any]) -> bool:
    kind = next((kind for kind in (ProgressBar, ModelCheckpoint) if isinstance(callback, kind)), type(callback))
    if any(isinstance(one, kind) for one in given):
        return False
    off = {
        ModelCheckpoint: config.get("enable_checkpointing") is False,
        ProgressBar: config.get("enable_progress_bar") is False,
        LearningRateMonitor: config.get("logger") is False or bool(config.get("fast_dev_run")),
    }
    return not off.get(kind, False)


def _options(group: re.Match[str]) -> list[str]:
    """What there is in a group of settings whose class the parser names."""
    module, _, name = group["kind"].rpartition(".")
    return [
        f"{group['group']}.{option}"
        for option in inspect.signature(getattr(importlib.import_module(module), name)).parameters
    ]


def _nearest(unknown: Iterable[str], known: Sequence[str]) -> str:
    """A line for each unknown name: which known ones look like it."""
    lines = []
    for word in dict.fromkeys(unknown):
        last = word.rsplit(".", 1)[-1]
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.6) or [
            name
            for part in difflib.get_close_matches(last, {k.rsplit(".", 1)[-1] for k in known}, n=2, cutoff=0.6)
            for name in known
            if name.rsplit(".", 1)[-1] == part
        ]
        lines.append(
            f"'{word}' is unknown; {'did you mean ' + ' or '.join(near[:3]) + '?' if near else 'see --help'}\n"
        )
    return "".join(lines)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advertisements and hints that do not apply here."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # the process has arguments of its own (`petground train ...`): these are the ones meant
        warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # it is: `resume.MidEpoch` tells the sampler what was taken
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        warnings.filterwarnings("ignore", message=".*requested to overfit but enabled train dataloader shuffling.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*The dirpath has changed.*")  # `BestCheckpoint` goes with the run
        warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")  # and says what it did
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*log_every_n_steps.*")
        try:
            yield
        finally:
            logger.setLevel(before)
