"""What analyses work on: sweeps, kept in a folder and made once, and trajectories, made again.

A rollout is a function of (key, puzzle, rollout, step), so nothing but numbers is kept of a sweep:
whoever wants to see the latents of one of its rollouts runs that rollout again.

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
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from ptrm_jax import mesh, metrics, sweep
from ptrm_jax.config import Langevin, MatmulPrecision, NoiseOn, NoiseWhen, Save
from ptrm_jax.data import Dataset
from ptrm_jax.model import TRM, Params
from ptrm_jax.sweep import Result, Shard, SweepConfig, folder as store, report


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a figure is made of; an analysis has its own defaults, and may have more settings."""

    checkpoint: str = "maze11"
    """A bundled checkpoint (maze11, sudoku6, sudoku9), or a directory that `python -m convert` or
    `experiments/train.py` wrote."""
    data: str | None = None
    """As for `experiments/ptrm_sweep.py`; by default the bundled set of the checkpoint's name."""
    split: str = "test"
    """Sub-folder of an upstream data folder."""
    num_puzzles: int | None = 128
    """The first so many puzzles of the data; None for all."""
    rollouts: int = 64
    """K, width: noisy rollouts of each puzzle."""
    depth: int = 16
    """D: supervision steps of each rollout."""
    sigma: float = 0.1
    """Noise scale, in units of the latent's root mean square."""
    seeds: tuple[int, ...] = (0,)
    """One independent run for each."""
    matmul_precision: MatmulPrecision = "highest"
    """Precision of every matrix product."""
    lane_tile: int | None = None
    """Rollouts that go through the network together; by default what suits the backend."""
    devices: int | None = None
    """How many local devices to use; by default all. Without effect on the result."""


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


class Study:
    """A checkpoint, puzzles, and a folder for sweeps.

    Args:
      name: of the analysis.
      settings: of the analysis.
      directory: sweeps are kept in `sweeps` below it, and found again.
      defaults: what `command` need not say.
      progress: called with (rollout-steps done, rollout-steps in all, what runs).
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        directory: str | os.PathLike[str],
        *,
        defaults: Settings | None = None,
        progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    ) -> None:
        self.name, self.settings = name, settings
        self._directory = epath.Path(directory)
        self._defaults = defaults or settings
        self.progress = progress

    @property
    def model(self) -> TRM:
        """The network."""
        return self._prepared.model

    @property
    def params(self) -> Params:
        """Its parameters."""
        return self._prepared.params

    @property
    def puzzles(self) -> Dataset:
        """The puzzles, all of them labelled."""
        return self._prepared.puzzles

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that decides a result, JSON."""
        return self._prepared.provenance

    @property
    def lane_tile(self) -> int:
        """Rollouts that go through the network together."""
        return self._prepared.lane_tile

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """Where it runs."""
        return self._prepared.devices

    @functools.cached_property
    def _prepared(self) -> sweep.Sweep:
        return sweep.prepare(self.config())

    def config(self, **changes: Any) -> SweepConfig:
        """The sweep that the settings describe, with changes; without the one at equal compute."""
        settings = self.settings
        config = SweepConfig(
            checkpoint=settings.checkpoint,
            data=settings.data,
            split=settings.split,
            sigmas=(settings.sigma,),
            rollouts=settings.rollouts,
            depth=settings.depth,
            seeds=settings.seeds,
            num_puzzles=settings.num_puzzles,
            equal_compute=False,
            matmul_precision=settings.matmul_precision,
            lane_tile=settings.lane_tile,
            devices=settings.devices,
        )
        return dataclasses.replace(config, **changes)

    def sweep(self, **changes: Any) -> Result:
        """The sweep of `config(**changes)`: read if it is there, gone on with, or made.

        Args:
          **changes: to the settings of a run, as fields of `SweepConfig`; checkpoint, data, number
            of puzzles and precision are the study's.

        Raises:
          CheckpointError, DataError, ValueError: what is wrong with checkpoint, data or settings.
        """
        config = self.config(**changes)
        # Loaded once: a study has many sweeps of one checkpoint and one set of puzzles.
        prepared = dataclasses.replace(self._prepared, config=config)
        digest = hashlib.sha256(json.dumps(prepared.identity, sort_keys=True).encode())
        name = f"{Path(config.checkpoint).name}-{digest.hexdigest()[:8]}"
        place = store.Store(self._directory / "sweeps" / name, prepared)
        finished, _ = place.read()
        units = sweep.left(prepared, finished, Shard())
        if units:
            total, done = sum(unit.rollout_steps for unit in units), 0

            def progress(steps: int, what: str) -> None:
                nonlocal done
                done += steps
                self.progress(done, total, what)

            place.create()
            with place.writer(Shard()) as keeper:
                sweep.work(prepared, finished=finished, keep=keeper.keep, progress=progress)
        return store.read(place.directory)

    def replay(
        self,
        rows: Sequence[int] | np.ndarray,
        rollouts: Sequence[int] | np.ndarray = (0,),
        *,
        sigma: float | None = None,
        seed: int | None = None,
        depth: int | None = None,
        noise_on: NoiseOn = "z",
        noise_when: NoiseWhen = "every",
        langevin: Langevin | None = None,
    ) -> Trajectories:
        """Rollouts of a sweep once more, with everything: mind the memory, 2 D L C numbers each.

        Args:
          rows: of the puzzles, B.
          rollouts: ids, K.
          sigma: noise scale, 0 for the deterministic TRM; by default that of the settings.
          seed: by default the first of the settings.
          depth: D; by default that of the settings.
          noise_on: as for `solve`.
          noise_when: as for `solve`.
          langevin: as for `solve`.
        """
        rows = np.asarray(rows)
        seed = self.settings.seeds[0] if seed is None else seed
        solution = mesh.solve(
            self.model,
            self.params,
            jax.random.key(seed, impl="threefry2x32"),
            self.puzzles.puzzles.take(rows),
            rollouts=np.asarray(rollouts, np.int32),
            depth=depth or self.settings.depth,
            sigma=self.settings.sigma if sigma is None else sigma,
            noise_on=noise_on,
            noise_when=noise_when,
            langevin=langevin,
            save=Save(answers=True, q_logits=True, latents=True),
            lane_tile=self.lane_tile,
            devices=self._prepared.devices,
        )
        path = solution.trajectory
        labels, ignore = self.puzzles.labels[rows], self.puzzles.ignore_label
        return Trajectories(
            path.answers,
            path.q_logits,
            path.finite,
            *(np.asarray(state, np.float32) for state in (path.y, path.z)),
            metrics.exact(path.answers, labels, ignore_label=ignore),
            metrics.cell_accuracy(path.answers, labels, ignore_label=ignore),
        )

    def caption(self, result: Result | None = None, more: str = "") -> str:
        """Checkpoint, data, K, D, sigma, seeds and number of puzzles of a sweep, or as set."""
        # Rollouts that no sweep has run are described like the sweep that would run them.
        made = result or self._prepared
        sigmas = ", ".join(f"{sigma:g}" for sigma in made.config.sigmas)
        lines = report.headline(made)
        lines[-1] += f", sigma {sigmas}; intervals: 95 % over puzzles"
        return "\n".join([*lines, *([more] if more else [])])

    @property
    def command(self) -> str:
        """What makes the figure, as one would type it."""
        words = ["python experiments/figures.py", self.name]
        for field in dataclasses.fields(self.settings):
            value = getattr(self.settings, field.name)
            if value != getattr(self._defaults, field.name):
                values = value if isinstance(value, tuple) else (value,)
                flag = field.name.replace("_", "-")
                if isinstance(value, bool):
                    words.append(f"--{'' if value else 'no-'}{flag}")
                else:
                    words += [f"--{flag}", *(shlex.quote(str(v)) for v in values)]
        return " ".join(words)
