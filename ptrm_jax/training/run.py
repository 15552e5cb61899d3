"""A training run before it trains: settings checked, data and weights loaded, folder checked."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax

from ptrm_jax import checkpoint, mesh, metrics
from ptrm_jax.config import ModelConfig
from ptrm_jax.data import Dataset
from ptrm_jax.errors import CheckpointError, TrainingError
from ptrm_jax.files import check_writable, is_partial, json_digest, unsigned
from ptrm_jax.model import TRM, Params
from ptrm_jax.provenance import differences
from ptrm_jax.reading import read_json
from ptrm_jax.tasks import read_dataset
from ptrm_jax.training.config import Records, TrainConfig
from ptrm_jax.training.examples import augmentation, read_examples
from ptrm_jax.training.stages import FOLDER
from ptrm_jax.training.step import make_model, make_step


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A run that is ready to start or to resume: checked and loaded, nothing compiled.

    Attributes:
      config: its settings.
      directory: its folder.
      model: the network.
      examples: puzzles to train on.
      evaluation: puzzles to evaluate on, or None.
      initial: initial weights, or None for random ones.
      start: digest and provenance of the checkpoint that they are from, or None.
      devices: where it runs.
    """

    config: TrainConfig
    directory: Path
    model: TRM
    examples: Dataset
    evaluation: Dataset | None
    initial: Params | None
    start: dict[str, Any] | None
    devices: tuple[jax.Device, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the weights, as JSON; a folder holds one identity."""
        identity = {
            "config": self.config.to_dict(),
            "data": {"digest": self.examples.digest, "num_examples": len(self.examples)},
            "evaluation": None if self.evaluation is None else self.evaluation.digest,
            "start": None if self.start is None else self.start["digest"],
        }
        return json.loads(json.dumps(identity))

    @property
    def decisive(self) -> dict[str, Any]:
        """The identity without what may change when the run is resumed."""
        return _decisive(self.identity)

    @property
    def complete(self) -> bool:
        """Whether all its steps are done and its checkpoint is written."""
        done = max(saved_steps(self.directory), default=0)
        return done == self.config.steps and (self.directory / "model").exists()

    @property
    def config_path(self) -> Path:
        """Where the identity is stored."""
        return self.directory / "config.json"


def prepare(
    config: TrainConfig, directory: str | os.PathLike[str], *, num_devices: int | None = None
) -> TrainingRun:
    """Loads and checks everything, before anything is compiled or written.

    Args:
      config: settings of the run.
      directory: folder of the run, new or to be resumed.
      num_devices: local devices to use; by default the largest number that divides the batch.

    Raises:
      DataError, CheckpointError, TrainingError, InputError: the data, the initial checkpoint, the
        folder or the settings cannot be used.
      StorageError: the folder cannot be written.
    """
    directory = Path(directory)
    check_folder(directory)
    model, devices = make_model(config), _devices(config, num_devices)
    # Builds the step, which checks the settings, without compiling it.
    make_step(model, config, augmentation(config), None, devices)
    evaluation = None
    if config.evaluation is not None:
        evaluation = read_dataset(config.evaluation)
        evaluation = evaluation.take(metrics.valid_rows(evaluation.labels, evaluation.ignore_label))
        evaluation.check_fits(config.model, in_training=True)
    initial, start = (None, None)
    if config.start_from is not None:
        initial, start = _load_initial(config.model, config.start_from)
    run = TrainingRun(
        config,
        directory,
        model,
        read_examples(config, evaluation),
        evaluation and evaluation.head(min(config.eval_puzzles, len(evaluation))),
        initial,
        start,
        devices,
    )
    _check_same_run(run)
    return run


def _devices(config: TrainConfig, num_devices: int | None) -> tuple[jax.Device, ...]:
    if num_devices is not None:
        return mesh.local_devices(num_devices)
    everything = mesh.local_devices()
    for count in range(len(everything), 0, -1):
        if config.batch_size % (count * config.micro_batch) == 0:
            return everything[:count]
    return everything[:1]  # `make_step` refuses it with a message


def _load_initial(model: ModelConfig, source: str) -> tuple[Params, dict[str, Any]]:
    manifest = checkpoint.read_manifest(source)
    here, there = vars(model), vars(ModelConfig.from_dict(manifest["config"]))
    different = [
        f"{name} is {there[name]!r} there and {value!r} here"
        for name, value in here.items()
        # The weights do not depend on how often, or in which dtype, they are applied.
        if name not in ("H_cycles", "L_cycles", "forward_dtype") and there[name] != value
    ]
    if different:
        raise CheckpointError(
            f"start_from {source!r} is a checkpoint of another model: {'; '.join(different)}"
        )
    start = {"digest": manifest["digest"], "provenance": manifest["provenance"]}
    return checkpoint.load(source)[1], start


def check_folder(directory: Path) -> None:
    """Checks that a run can be stored there; leaves nothing behind.

    Raises:
      TrainingError: the folder holds something else.
      StorageError: the folder cannot be written.
    """
    check_writable(directory)
    if not directory.exists() or (directory / "config.json").exists():
        return
    # A run may have been killed while it wrote its first file, or before its last stage.
    if not all(is_partial(path) or path.name == FOLDER for path in directory.iterdir()):
        raise TrainingError(_foreign(directory))


def _foreign(directory: Path) -> str:
    return f"{directory} holds something other than a training run; pass another output"


def _check_same_run(run: TrainingRun) -> None:
    path = run.config_path
    if not path.exists():
        return
    done = max(saved_steps(run.directory), default=0)
    try:
        before = unsigned(read_json(path))
    except ValueError as error:
        if _is_state_of(run, done):
            before = run.identity  # written anew when the run is resumed
        else:
            raise TrainingError(f"{path} cannot be read: {error}; pass another output") from error
    if before.keys() != run.identity.keys() or not isinstance(before["config"], dict):
        raise TrainingError(_foreign(run.directory))
    if different := differences(_decisive(before), run.decisive):
        raise TrainingError(
            f"{run.directory} holds another run: {'; '.join(different)}; pass another output, or "
            "the settings that it was started with"
        )
    if run.config.steps < done:
        raise TrainingError(
            f"{run.directory} has done {done} steps, but steps is {run.config.steps}; pass another "
            "output, or more steps"
        )


def _decisive(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without what may change: records, and steps where no schedule needs them."""
    may_change = {field.name for field in dataclasses.fields(Records)}
    config = {n: value for n, value in identity["config"].items() if n not in may_change}
    if config.get("min_learning_rate_ratio") == 1.0:
        config.pop("steps", None)
    return {**identity, "config": config}


def _is_state_of(run: TrainingRun, step: int) -> bool:
    """Whether the saved state of a step says that it is of this run."""
    try:
        notes = read_json(run.directory / "state" / str(step) / "notes" / "metadata")
    except (OSError, ValueError):
        return False
    return isinstance(notes, dict) and notes.get("run") == json_digest(run.decisive)


def saved_steps(directory: Path) -> list[int]:
    """Steps of the saved states of a run."""
    return [int(path.name) for path in directory.glob("state/*") if path.name.isdecimal()]
