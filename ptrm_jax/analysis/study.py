"""What the analyses of one checkpoint and its puzzles share: settings, sweeps, replayed rollouts.

A sweep keeps scores and no latents. A rollout is a function of (key, puzzle, rollout, step), so its
trajectory is computed again when a figure needs it.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens, L positions, C channels.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from etils import epath

from ptrm_jax import mesh, metrics, sweep
from ptrm_jax.analysis.exhibit import Exhibit
from ptrm_jax.config import Langevin, Save
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Rollouts
from ptrm_jax.sweep import Result, SweepConfig, scores
from ptrm_jax.sweep.config import Inputs, Numerics, Size
from ptrm_jax.sweep.run import Progress


@dataclasses.dataclass(frozen=True)
class OneSigma(Size):
    """Width, depth, seeds, and one noise scale."""

    sigma: float = 0.1
    """Noise scale, in units of the latent's root mean square."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of every figure; a figure has its own defaults, and may have more settings."""

    inputs: Inputs = Inputs("maze11", num_puzzles=128)
    search: OneSigma = OneSigma(rollouts=64)
    numerics: Numerics = Numerics()


@dataclasses.dataclass(frozen=True)
class KeptSettings(Settings):
    """Settings of figures that are read off the kept steps of one sweep."""

    search: OneSigma = OneSigma(rollouts=32, depth=32)
    sweep: str | None = None
    """Folder of a finished sweep to show, instead of running one; the settings of model, puzzles
    and search do not count then, but for sigma if the sweep has several."""


SettingsT = TypeVar("SettingsT", bound=Settings, covariant=True)


class Trajectories(NamedTuple):
    """Rollouts of some puzzles, step by step, as numpy arrays.

    Attributes:
      answers: [B, K, D, S] int32.
      q_logit: [B, K, D] float32.
      finite: [B, K, D] bool.
      y: [B, K, D, L, C] float32.
      z: [B, K, D, L, C] float32.
      correct: [B, K, D] bool, the whole answer is right.
      cell_accuracy: [B, K, D] float64, fraction of counted positions.
    """

    answers: np.ndarray
    q_logit: np.ndarray
    finite: np.ndarray
    y: np.ndarray
    z: np.ndarray
    correct: np.ndarray
    cell_accuracy: np.ndarray


class Solved(NamedTuple):
    """Which puzzles a sweep solves at one noise scale, as arrays for `metrics.interval`.

    Attributes:
      result: the sweep.
      sigma: noise scale of the runs, one run per seed, R.
    """

    result: Result
    sigma: float

    @property
    def rollouts(self) -> list[Rollouts]:
        """The scores of its R runs, [B, K, D] each."""
        return [run.rollouts for run in self.result.runs_of(self.sigma)]

    def ptrm(self, choice: str, k: int, depth: int) -> np.ndarray:
        """How often the choice among k rollouts is right after `depth` steps: [R, B] float64.

        Args:
          choice: a key of `scores.CHOICES`.
          k: rollouts to choose from.
          depth: supervision steps.
        """
        runs = self.result.runs_of(self.sigma)
        return scores.over_seeds(runs, scores.CHOICES[choice], k, depth)

    def trm(self, depth: int) -> np.ndarray:
        """Whether the deterministic TRM is right after `depth` steps: [R, B] float64, equal rows.

        Args:
          depth: supervision steps.
        """
        right = self.result.deterministic.rollouts.at(depth).correct[:, 0].astype(float)
        return np.broadcast_to(right, (len(self.result.runs_of(self.sigma)), len(right)))


def kept(study: "Study[KeptSettings]", **changes: Any) -> Solved:
    """The sweep whose steps a figure shows: the one of its settings, or one that exists.

    Args:
      study: of the figure.
      **changes: as for `Study.sweep`.

    Raises:
      InputError: a sweep that exists has not the sigma of the settings, but several others.
    """
    folder, sigma = study.settings.sweep, study.settings.search.sigma
    if folder is None:
        return Solved(study.sweep(**changes), sigma)
    result = sweep.read(folder)
    sigmas = result.config.sigmas
    sigma = sigmas[0] if len(sigmas) == 1 else sigma
    if sigma not in sigmas:
        raise InputError(f"sigma must be one of {sigmas} of {folder}; got {sigma}; pass --sigma")
    return Solved(result, sigma)


class Study(Generic[SettingsT]):
    """A figure's settings, its loaded checkpoint and puzzles, and a folder for its sweeps.

    Args:
      name: of the figure.
      settings: of the figure.
      directory: sweeps are kept in its sub-folder `sweeps` and reused.
      defaults: settings that `command` leaves out.
      progress: called with the number of rollout-steps of a computation before it starts; returns
        the callback that it reports to.
    """

    def __init__(
        self,
        name: str,
        settings: SettingsT,
        directory: str | os.PathLike[str],
        *,
        defaults: Settings | None = None,
        progress: Callable[[int], Progress] = lambda total: lambda steps, what: None,
    ) -> None:
        self.name, self.settings, self.progress = name, settings, progress
        self._directory = epath.Path(directory)
        self._defaults = defaults or settings

    @functools.cached_property
    def prepared(self) -> sweep.Sweep:
        """The sweep of `config()`, loaded once: model, parameters, puzzles, devices, provenance."""
        return sweep.prepare(self.config())

    def config(self, **changes: Any) -> SweepConfig:
        """The sweep at the figure's sigma, with changes; by default without equal compute."""
        settings = self.settings
        fields = vars(settings.inputs) | vars(settings.search) | vars(settings.numerics)
        fields["sigmas"] = (fields.pop("sigma"),)
        return SweepConfig(**{**fields, "equal_compute": False, **changes})

    def sweep(self, **changes: Any) -> Result:
        """The sweep of `config(**changes)`: read if it is finished, otherwise run or resumed.

        Args:
          **changes: to the fields of `Search`; model, puzzles and precision are the study's.

        Raises:
          CheckpointError, DataError, InputError: what is wrong with checkpoint, data or settings.
          SweepError: the sweep's folder cannot be used.
        """
        prepared = self.prepared.with_config(self.config(**changes))
        digest = hashlib.sha256(json.dumps(prepared.identity, sort_keys=True).encode()).hexdigest()
        name = f"{Path(prepared.config.checkpoint).name}-{digest[:8]}"
        folder = self._directory / "sweeps" / name
        found = sweep.inspect(prepared, folder)
        if not found.remaining:
            return sweep.read(folder)
        progress = self.progress(sum(unit.rollout_steps for unit in found.remaining))
        return sweep.resume(prepared, folder, found=found, progress=progress)

    def replay(
        self,
        rows: Sequence[int] | np.ndarray,
        rollouts: Sequence[int] | np.ndarray = (0,),
        *,
        sigma: float | None = None,
        langevin: Langevin | None = None,
    ) -> Trajectories:
        """Computes rollouts of a sweep again, with their latents: 2 D L C numbers each.

        Args:
          rows: of the puzzles, B.
          rollouts: ids, K, of the first seed.
          sigma: noise scale, 0 for the deterministic TRM; by default that of the settings.
          langevin: as for `solve`.
        """
        rows, prepared, search = np.asarray(rows), self.prepared, self.settings.search
        solution = mesh.solve(
            prepared.model,
            prepared.params,
            jax.random.key(search.seeds[0], impl="threefry2x32"),
            prepared.puzzles.puzzles.take(rows),
            rollouts=np.asarray(rollouts, np.int32),
            depth=search.depth,
            sigma=search.sigma if sigma is None else sigma,
            langevin=langevin,
            save=Save(answers=True, q_logits=True, latents=True),
            lane_tile=prepared.lane_tile,
            devices=prepared.devices,
            backend=prepared.backend,
        )
        path = solution.trajectory
        assert path is not None and path.answers is not None
        labels, ignore = prepared.puzzles.labels[rows], prepared.puzzles.ignore_label
        return Trajectories(
            path.answers,
            np.asarray(path.q_logits),
            np.asarray(path.finite),
            np.asarray(path.y, np.float32),
            np.asarray(path.z, np.float32),
            metrics.exact(path.answers, labels, ignore_label=ignore),
            metrics.cell_accuracy(path.answers, labels, ignore_label=ignore),
        )

    def caption(self, result: Result | None = None, more: str = "") -> str:
        """Checkpoint, data, K, D, sigma, seeds and number of puzzles.

        Args:
          result: the sweep to describe; by default the one that the settings describe.
          more: a line to add.
        """
        described = result or self.prepared
        sigmas = ", ".join(f"{sigma:g}" for sigma in described.config.sigmas)
        lines = scores.headline(described.config, described.provenance)
        lines[-1] += f", sigma {sigmas}; intervals: 95 % over puzzles"
        return "\n".join([*lines, *([more] if more else [])])

    @property
    def command(self) -> str:
        """The command that makes the figure, as one would type it."""
        words = ["python experiments/figures.py", self.name]
        return " ".join(words + _flags(self.settings, self._defaults))

    def exhibit(
        self, title: str, *, caption: str, result: Result | None = None, **fields: Any
    ) -> Exhibit:
        """The figure with its name, command and provenance.

        Args:
          title: as in `Exhibit`.
          caption: as in `Exhibit`.
          result: the sweep that it shows; by default the one that the settings describe.
          **fields: the others of `Exhibit`.
        """
        provenance = (result or self.prepared).provenance
        return Exhibit(self.name, title, caption, self.command, provenance=provenance, **fields)


def _flags(settings: Any, defaults: Any) -> list[str]:
    """The flags of settings that differ from the defaults."""
    flags: list[str] = []
    for field in dataclasses.fields(settings):
        value, default = getattr(settings, field.name), getattr(defaults, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            flags += _flags(value, default)
        elif value != default and isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{name}")
        elif value != default:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{name}", *(shlex.quote(str(v)) for v in values)]
    return flags
