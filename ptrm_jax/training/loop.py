"""A training run on disk: starts, logs, evaluates, survives being killed, exports.

    RUN/config.json             what was asked, data digests
    RUN/log.jsonl               a line per `log_every` steps, per evaluation, per start
    RUN/curves.png              drawn from it
    RUN/state/<step>/           the whole state, by Orbax; the newest is where a killed run goes on
    RUN/snapshots/step_<n>/     a checkpoint of the averaged weights at every evaluation
    RUN/model/                  the last of them, once the run is complete

The state, the position in the data and the seed decide everything that follows. So a run that was
killed, at any moment, ends with the bits of one that was not.
"""

import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from ptrm_jax import checkpoint, mesh, metrics, sweep
from ptrm_jax.data import DataError, Dataset, read_dataset
from ptrm_jax.model import TRM, Params
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.curves import draw_curves
from ptrm_jax.training.examples import Position, Stream, augmentation, read_examples
from ptrm_jax.training.step import (
    Examples,
    StepMetrics,
    TrainState,
    averaged,
    init_state,
    make_model,
    make_step,
)
from ptrm_jax.version import __version__

_MAY_CHANGE = (
    *("log_every", "checkpoint_every", "keep", "eval_every"),
    *("eval_puzzles", "eval_depth", "eval_rollouts", "eval_sigma"),
)
"""Settings that a run may go on with otherwise than it began: they do not touch the weights."""


class TrainingError(Exception):
    """A run that cannot go on; says why, and what is kept."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run ready to start or to go on: everything checked and loaded, nothing compiled.

    Attributes:
      config: what was asked.
      directory: where it lives.
      model: the network.
      examples: what it trains on.
      evaluation: what it is scored on, or None.
      initial: weights to start from, or None.
      devices: where it runs.
    """

    config: TrainConfig
    directory: Path
    model: TRM
    examples: Dataset
    evaluation: Dataset | None
    initial: Params | None
    devices: tuple[jax.Device, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the weights; a directory holds runs of one identity only."""
        return json.loads(
            json.dumps(
                {
                    "config": self.config.to_dict(),
                    "data": {
                        "digest": self.examples.digest,
                        "num_examples": len(self.examples),
                    },
                    "evaluation": None if self.evaluation is None else self.evaluation.digest,
                }
            )
        )


def prepare(
    config: TrainConfig, directory: str | os.PathLike[str], *, num_devices: int | None = None
) -> Run:
    """Loads and checks everything, before anything is compiled or written.

    Args:
      config: the run.
      directory: where it lives, or will.
      num_devices: local devices to use; by default as many as divide the batch.

    Raises:
      DataError, CheckpointError, TrainingError, ValueError: what is wrong with data, the checkpoint
        to start from, the directory, or the settings.
    """
    directory = Path(directory)
    _check_writable(directory)
    evaluation = None
    if config.evaluation is not None:
        evaluation = read_dataset(config.evaluation)
        evaluation = evaluation.take(metrics.valid_rows(evaluation.labels, evaluation.ignore_label))
        evaluation.check_fits(config.model)
    initial = None if config.start_from is None else _load_initial(config)
    augmentation(config)  # refuses what has no symmetries
    examples = read_examples(config, evaluation)
    run = Run(
        config,
        directory,
        make_model(config),
        examples,
        evaluation and evaluation.head(min(config.eval_puzzles, len(evaluation))),
        initial,
        _devices(config, num_devices),
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
    return everything[:1]  # `make_step` says what is wrong


def _load_initial(config: TrainConfig) -> Params:
    manifest = checkpoint.read_manifest(config.start_from)
    asked = config.model.to_dict()
    different = [
        f"{name} is {manifest['config'].get(name)!r} there and {value!r} here"
        for name, value in asked.items()
        # What it was computed in does not change what the weights are.
        if name != "forward_dtype" and manifest["config"].get(name) != value
    ]
    if different:
        raise checkpoint.CheckpointError(
            f"start_from {config.start_from!r} is a checkpoint of another model: "
            + "; ".join(different)
        )
    return checkpoint.load(config.start_from)[1]


def _check_writable(directory: Path) -> None:
    """Raises TrainingError where a run cannot be kept; leaves nothing behind."""
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TrainingError(f"{directory} cannot be written: {parent} is no writable folder")
    if directory.exists() and any(directory.iterdir()) and not _config_path(directory).exists():
        raise TrainingError(
            f"{directory} holds something other than a training run; pass another output"
        )


def _config_path(directory: Path) -> Path:
    return directory / "config.json"


def _check_same_run(run: Run) -> None:
    path = _config_path(run.directory)
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old, new = (dict(_flatten(identity)) for identity in (before, run.identity))
    except (ValueError, AttributeError) as error:
        raise TrainingError(f"{path} cannot be read: {error}; pass another output") from error
    may_change = {f"config.{name}" for name in _MAY_CHANGE}
    if run.config.min_learning_rate_ratio == 1.0:
        may_change.add("config.steps")  # without a schedule towards its end a run may be longer
    different = [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in may_change
    ]
    if different:
        raise TrainingError(
            f"{run.directory} holds another run: {'; '.join(different)}; pass another output, or "
            "the settings it was started with"
        )


def _flatten(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flatten(value, f"{name}.{key}" if name else key)
    else:
        yield name, tree


# --- The run -------------------------------------------------------------------------------------


def train(
    run: Run,
    *,
    progress: Callable[[dict[str, Any]], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains until `config.steps` are done, from where the run stands.

    Args:
      run: of `prepare`.
      progress: called with every record of the log.
      stop: asked after every step; if it says so, the state is saved and the call returns.

    Returns:
      Whether the run is complete.

    Raises:
      TrainingError: the loss is no longer finite; or the saved state is damaged.
      OSError: something cannot be written; the state saved last stays.
    """
    config = run.config
    run.directory.mkdir(parents=True, exist_ok=True)
    _write_json(_config_path(run.directory), run.identity)
    with _States(run) as states:
        state, position, seconds = states.restore()
        done = int(state.step)
        log = _Log(run.directory / "log.jsonl", done, progress)
        log.write({"kind": "start", "step": done, **_provenance(run)})
        step = make_step(
            run.model, config, augmentation(config), run.examples.ignore_label, run.devices
        )
        stream = Stream(run.examples, config.seed, position)
        rows = mesh.sharding(run.devices, split=True)
        meter = _Meter(config, done, seconds)

        def save() -> None:
            meter.flush(log, done)
            states.save(state, stream.position, meter.seconds)

        while done < config.steps:
            batch = Examples(*(jax.device_put(x, rows) for x in stream.take(config.batch_size)))
            state, step_metrics = step(state, batch)
            done += 1
            meter.add(step_metrics)
            if done % config.log_every == 0:
                meter.flush(log, done)
            stopping = stop()
            if stopping or done % config.checkpoint_every == 0 or done == config.steps:
                save()
            if config.eval_every and done % config.eval_every == 0 and done < config.steps:
                meter.flush(log, done)
                with meter.pause():
                    export(run, averaged(state), run.directory / f"snapshots/step_{done:06d}", done)
                    _evaluate_and_log(run, averaged(state), done, log)
            if stopping and done < config.steps:
                return False
        with meter.pause():
            export(run, averaged(state), run.directory / "model", done)
            if not log.has("eval", done):
                _evaluate_and_log(run, averaged(state), done, log)
            draw_curves(log.path, run.directory / "curves.png")
    return True


def export(run: Run, params: Params, directory: Path, step: int) -> None:
    """A checkpoint of these weights, as `ptrm_jax.load` reads it."""
    checkpoint.save(
        directory,
        run.config.model,
        jax.tree.map(np.asarray, params),
        provenance={"trained_by": "ptrm_jax", "step": step, **run.identity, **_provenance(run)},
        overwrite=True,
    )


def _provenance(run: Run) -> dict[str, Any]:
    return {
        "versions": {
            "ptrm_jax": __version__,
            "jax": jax.__version__,
            "jaxlib": jax.lib.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "platform": {
            "backend": run.devices[0].platform,
            "device_kind": run.devices[0].device_kind,
            "devices": len(run.devices),
            "machine": platform.machine(),
        },
    }


# --- Evaluation ----------------------------------------------------------------------------------


def evaluate(run: Run, params: Params) -> dict[str, Any]:
    """Scores weights on the run's evaluation set: deterministic TRM, and PTRM beside it.

    Returns:
      JSON: accuracies as (mean, low, high, num_puzzles), the AUC of Q, deterministic accuracy by
      depth.
    """
    config = run.config
    assert run.evaluation is not None
    result = sweep.run(
        sweep.Sweep(
            config=sweep.SweepConfig(
                checkpoint="averaged weights",
                sigmas=(config.eval_sigma,),
                rollouts=config.eval_rollouts,
                depth=config.eval_depth,
                equal_compute=False,
            ),
            model=run.model,
            params=mesh.replicate(params, run.devices),
            puzzles=run.evaluation,
            devices=run.devices,
            lane_tile=mesh.default_lane_tile(),
            provenance={},
        )
    )
    rows = {
        "deterministic" if row.method == "TRM" else row.choice: row.accuracy
        for row in sweep.summary(result)
    }
    quiet = result.deterministic.record.correct[:, 0]
    noisy = result.runs[0].record.at(config.eval_depth)
    return {
        **{name: tuple(accuracy) for name, accuracy in rows.items()},
        "q_auc": metrics.q_auc(noisy.correct, noisy.q_logit, finite=noisy.finite),
        "by_depth": [round(float(x), 4) for x in quiet.mean(axis=0)],
        **{name: getattr(config, name) for name in ("eval_depth", "eval_rollouts", "eval_sigma")},
    }


def _evaluate_and_log(run: Run, params: Params, step: int, log: "_Log") -> None:
    if run.evaluation is None:
        return
    start = time.perf_counter()
    scores = evaluate(run, params)
    seconds = round(time.perf_counter() - start, 1)
    log.write({"kind": "eval", "step": step, **scores, "eval_seconds": seconds})
    draw_curves(log.path, run.directory / "curves.png")


# --- Log -----------------------------------------------------------------------------------------


class _Log:
    """The JSON lines of a run; those of steps that have to be done again are dropped."""

    def __init__(self, path: Path, step: int, progress: Callable[[dict[str, Any]], None]) -> None:
        self.path, self._progress = path, progress
        self._kept = [record for record in read_log(path) if record["step"] <= step]
        lines = "".join(json.dumps(record) + "\n" for record in self._kept)
        _write_text(path, lines)

    def has(self, kind: str, step: int) -> bool:
        return any(r["kind"] == kind and r["step"] == step for r in self._kept)

    def write(self, record: dict[str, Any]) -> None:
        record = json.loads(json.dumps(_finite(record)))
        self._kept.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._progress(record)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Meter:
    """Collects the metrics of steps without waiting for them, and turns them into log records."""

    def __init__(self, config: TrainConfig, step: int, seconds: float) -> None:
        self._config = config
        self._pending: list[StepMetrics] = []
        self._step, self._before = step, seconds
        self._start = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time trained, over all processes of this run."""
        return self._before + time.perf_counter() - self._start

    def add(self, step_metrics: StepMetrics) -> None:
        self._pending.append(step_metrics)

    def pause(self) -> "_Pause":
        """A context whose time does not count."""
        return _Pause(self)

    def shift(self, seconds: float) -> None:
        self._start += seconds
        self._last += seconds

    def flush(self, log: _Log, step: int) -> None:
        """Writes the record of the steps since the last one, if there are any.

        Raises:
          TrainingError: one of them was not finite.
        """
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        now = time.perf_counter()
        sums = StepMetrics(*(np.array(x, np.float64) for x in zip(*fetched, strict=True)))
        bad = ~(np.isfinite(sums.loss) & np.isfinite(sums.grad_norm))
        if bad.any():
            at = self._step + int(np.argmax(bad)) + 1
            raise TrainingError(
                f"the loss or its gradient is not finite at step {at}; the state saved last is "
                "kept; lower learning_rate, or go on from a snapshot by start_from"
            )
        count = len(fetched)
        halted = float(sums.halted.sum())
        per_halted = 1.0 / halted if halted else math.nan
        rate = count / max(now - self._last, 1e-9)
        log.write(
            {
                "kind": "train",
                "step": step,
                "loss": float(sums.loss.mean()),
                "lm_loss": float(sums.lm_loss.mean()),
                "q_loss": float(sums.q_loss.mean()),
                "cell_accuracy": float(sums.cell_accuracy.sum() * per_halted),
                "exact_accuracy": float(sums.exact.sum() * per_halted),
                "q_accuracy": float(sums.q_right.sum() * per_halted),
                "mean_steps": float(sums.steps.sum() * per_halted),
                "halting_rate": halted / (count * self._config.batch_size),
                "grad_norm": float(sums.grad_norm.mean()),
                "steps_per_second": rate,
                "seconds": self.seconds,
                "seconds_left": (self._config.steps - step) / rate,
            }
        )
        self._pending, self._step, self._last = [], step, now


class _Pause:
    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._meter.shift(time.perf_counter() - self._start)


# --- State ---------------------------------------------------------------------------------------


class _States:
    """The saved states of a run, by Orbax, each with a digest of its bytes."""

    def __init__(self, run: Run) -> None:
        import orbax.checkpoint as ocp  # 0.8 s to import

        self._run, self._ocp = run, ocp
        self._manager = ocp.CheckpointManager(
            epath.Path(run.directory.absolute() / "state"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=run.config.keep, enable_async_checkpointing=False
            ),
        )

    def __enter__(self) -> "_States":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, position: Position, seconds: float) -> None:
        """Saves the state, unless it is saved already."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        args = self._ocp.args
        notes = {"position": list(position), "seconds": seconds, "digest": _digest(state)}
        self._manager.save(
            step, args=args.Composite(state=args.StandardSave(state), notes=args.JsonSave(notes))
        )

    def restore(self) -> tuple[TrainState, Position, float]:
        """The newest state, its data position and the seconds behind it; or the beginning.

        Raises:
          TrainingError: it is damaged.
        """
        run = self._run
        fresh = self._placed(init_state(run.model, run.config, run.initial))
        step = self._manager.latest_step()
        if step is None:
            return fresh, Position(), 0.0
        args = self._ocp.args
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), fresh
        )
        folder = f"{run.directory}/state/{step}"
        try:
            restored = self._manager.restore(
                step,
                args=args.Composite(state=args.StandardRestore(abstract), notes=args.JsonRestore()),
            )
        # Orbax raises whatever its layers raise, with pages of text.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TrainingError(
                f"{folder} cannot be read: {reason}; delete it to go on from the state before"
            ) from error
        if _digest(restored.state) != restored.notes["digest"]:
            raise TrainingError(
                f"{folder} is damaged: its digest does not match; delete it to go on from the "
                "state before"
            )
        notes = restored.notes
        return restored.state, Position(*notes["position"]), notes["seconds"]

    def _placed(self, state: TrainState) -> TrainState:
        devices = self._run.devices
        whole, split = (mesh.sharding(devices, split=s) for s in (False, True))
        rows = jax.device_put(state.rows, split)
        return TrainState(*jax.device_put(state[:-1], whole), rows)


def _digest(state: TrainState) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


INPUT_ERRORS = (*sweep.INPUT_ERRORS, DataError, TrainingError)
"""What bad input raises; commands turn them into exit status 2."""
