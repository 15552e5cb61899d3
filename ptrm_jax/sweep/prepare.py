"""From settings to a sweep that is ready to run: all loaded and checked, nothing compiled."""

import dataclasses
import functools
import json
from typing import Any

import jax

from ptrm_jax import checkpoint, mesh, metrics
from ptrm_jax.config import Backend, KeepAnswers
from ptrm_jax.data import Dataset
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.provenance import environment
from ptrm_jax.sweep.config import DEFAULT_NUM_PUZZLES, Search, SweepConfig
from ptrm_jax.sweep.plan import Unit, default_unit_steps, plan_runs, plan_version
from ptrm_jax.tasks import bundled_sets, read_dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A loaded model, puzzles, and what to run on them: enough to compute.

    Attributes:
      search: width, depth and noise.
      model: the network.
      params: its parameters, on every device.
      puzzles: what to solve.
      devices: where.
      lane_tile: rollouts that pass through the network together.
      unit_steps: approximate rollout-steps of a work unit; None for the default.
      backend: how units are spread over devices.
      keep_answers: answers to keep beside their digests.
    """

    search: Search
    model: TRM
    params: Params
    puzzles: Dataset
    devices: tuple[jax.Device, ...]
    lane_tile: int
    unit_steps: int | None = None
    backend: Backend = "pmap"
    keep_answers: KeepAnswers = "none"

    @functools.cached_property
    def runs(self) -> list[list[Unit]]:
        """As `plan_runs`."""
        return plan_runs(self.search, len(self.puzzles), self.lane_tile, self.unit_steps)

    @functools.cached_property
    def units(self) -> list[Unit]:
        """All work, in order."""
        return list(dict.fromkeys(unit for run in self.runs for unit in run))

    @property
    def rollout_steps(self) -> int:
        """Supervision steps of single rollouts, summed over all units."""
        return sum(unit.rollout_steps for unit in self.units)

    def keep_steps(self, depth: int) -> list[int]:
        """Supervision steps, from 1, of a run to `depth` whose answers are kept."""
        return steps_to_keep(self.keep_answers, self.search.depth, depth)


def steps_to_keep(keep_answers: KeepAnswers, search_depth: int, depth: int) -> list[int]:
    """Supervision steps, from 1, whose answers are kept of a run to `depth`.

    Args:
      keep_answers: the setting.
      search_depth: D of the search; the deterministic TRM may run deeper.
      depth: of the run.
    """
    if keep_answers == "none":
        return []
    if keep_answers == "all":
        return list(range(1, depth + 1))
    return sorted({min(search_depth, depth), depth})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Workload):
    """A sweep that is ready to run.

    Attributes:
      search: all settings.
      provenance: everything that decides the result, as JSON.
    """

    search: SweepConfig
    provenance: dict[str, Any]

    @property
    def config(self) -> SweepConfig:
        """All settings."""
        return self.search

    def with_config(self, config: SweepConfig) -> "Sweep":
        """Another sweep of the same model, puzzles, precision and devices."""
        return dataclasses.replace(self, search=config, **_from_config(config))

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the bits of the result, and nothing else, as JSON."""
        config, source = self.config, self.provenance
        names = ["sigmas", "seeds", "rollouts", "depth", "equal_compute"]
        names += ["noise_on", "noise_when", "keep_answers", "unlabelled"]
        # What a sweep does without is left out, so that folders of earlier versions are resumed.
        if config.langevin is not None:
            names += ["langevin_updates", "langevin_step_size", "langevin_gradient"]
        if config.stop is not None:
            names += ["stop_q", "patience", "min_depth", "agree", "max_rollout_steps"]
        if config.read == "best" and config.keep_answers == "last":
            names += ["read"]
        unit_steps = self.unit_steps
        version = plan_version(self.lane_tile)
        identity = {
            "checkpoint": source["checkpoint"]["digest"],
            "data": {name: source["data"][name] for name in ("digest", "num_puzzles", "task")},
            "settings": {name: getattr(config, name) for name in names},
            "unit_steps": default_unit_steps(self.lane_tile) if unit_steps is None else unit_steps,
            "precision": source["precision"],
            "lane_tile": self.lane_tile,
            "key": source["key"],
            "versions": {n: source["versions"][n] for n in ("ptrm_jax", "jax", "jaxlib")},
            "platform": {n: source["platform"][n] for n in ("backend", "device_kind", "machine")},
        }
        if version > 1:  # 0.4.0 stated none
            identity["plan"] = version
        if "arrangement" in source:  # a CPU's is not stated
            identity["arrangement"] = source["arrangement"]
        return json.loads(json.dumps(identity))


def _from_config(config: SweepConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("unit_steps", "backend", "keep_answers")}


def prepare(config: SweepConfig) -> Sweep:
    """Loads and checks everything a sweep needs, before anything is compiled.

    Raises:
      CheckpointError, DataError, InputError: what is wrong with checkpoint, data or settings.
    """
    manifest = checkpoint.read_manifest(config.checkpoint)
    precision = config.precision(manifest["config"]["forward_dtype"])
    devices = mesh.local_devices(config.devices)
    model, params = checkpoint.load(config.checkpoint, precision=precision)
    whole = read_dataset(config.data or _data_of(config.checkpoint), split=config.split)
    puzzles = _choose_puzzles(config, whole)
    puzzles.check_fits(model.config)
    lane_tile = config.lane_tile or mesh.default_lane_tile(model, devices[0])
    arrangement = mesh.arrange(model, devices).arrangement
    provenance = {
        "checkpoint": {"name": config.checkpoint, "digest": manifest["digest"]},
        "data": {
            "name": puzzles.name,
            "digest": puzzles.digest,
            "num_puzzles": len(puzzles),
            "of": len(whole),
            "task": puzzles.task,
        },
        "precision": dataclasses.asdict(precision),
        "lane_tile": lane_tile,
        "key": {
            "impl": "threefry2x32",
            "draw_dtype": "float32",
            "jax_threefry_partitionable": bool(jax.config.jax_threefry_partitionable),  # type: ignore[attr-defined]
        },
        **({} if arrangement == "cpu" else {"arrangement": arrangement}),
        **environment(devices),
    }
    return Sweep(
        search=config,
        model=model,
        params=mesh.replicate(params, devices),
        puzzles=puzzles,
        devices=devices,
        lane_tile=lane_tile,
        provenance=provenance,
        **_from_config(config),
    )


def _choose_puzzles(config: SweepConfig, whole: Dataset) -> Dataset:
    """The puzzles of a data set that a sweep solves, with their task."""
    # Rows whose every label is ignored are padding of the file, or puzzles without a known answer.
    labelled = metrics.valid_rows(whole.labels, whole.ignore_label)
    chosen = whole if config.unlabelled else whole.take(labelled)
    wanted = config.num_puzzles
    if wanted == DEFAULT_NUM_PUZZLES:
        wanted = min(wanted, len(chosen))
    chosen = chosen.head(wanted or None)
    if config.task is not None and chosen.task not in (None, config.task):
        raise InputError(
            f"task must be that of the data; {chosen.name} is of {chosen.task!r}; got "
            f"{config.task!r}; pass other data"
        )
    known = metrics.valid_rows(chosen.labels, chosen.ignore_label).any()
    if not known and not config.unlabelled:
        raise DataError(
            f"{chosen.name} must have a label for at least one of the puzzles to solve; it has "
            "none for these; pass other data or more of them"
        )
    return dataclasses.replace(chosen, task=config.task or chosen.task)


def _data_of(checkpoint_name: str) -> str:
    if checkpoint_name in bundled_sets():
        return checkpoint_name
    raise InputError(
        f"data must be given with a checkpoint that is not bundled; got none for "
        f"{checkpoint_name!r}; pass a bundled set ({', '.join(bundled_sets())}), a CSV file or an "
        "upstream folder"
    )
