"""What a sweep found: every rollout of every (sigma, seed), scored after every step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptrm_jax import metrics
from ptrm_jax.errors import IncompleteError
from ptrm_jax.metrics import Rollouts
from ptrm_jax.sweep.config import Search, SweepConfig
from ptrm_jax.sweep.measure import Chosen, Finished, Measured, assemble
from ptrm_jax.sweep.plan import Unit
from ptrm_jax.sweep.prepare import Sweep, Workload, steps_to_keep


def run_name(sigma: float, seed: int) -> str:
    """The name of a run in files."""
    return f"sigma{sigma:g}_seed{seed}"


@dataclasses.dataclass(frozen=True)
class Run:
    """One (sigma, seed) of a sweep; the deterministic one has sigma 0 and one rollout.

    Attributes:
      sigma: noise scale.
      seed: the user's integer.
      rollouts: scores of the puzzles that have labels, [B, K, D]; with a stopping rule those of its
        answers, [B, 1, 1].
      seconds: wall time of its units, summed, without compilation.
      compile_seconds: time of compilation.
      measured: the same of all puzzles, with the answers that were kept.
      chosen: what the stopping rule did with the puzzles that have labels; None without one.
    """

    sigma: float
    seed: int
    rollouts: Rollouts
    seconds: float
    compile_seconds: float
    measured: Measured
    chosen: Chosen | None = None

    @property
    def name(self) -> str:
        """As in files."""
        return run_name(self.sigma, self.seed)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All runs of a search.

    Attributes:
      search: what was run.
      deterministic: TRM without noise, one rollout, to `search.baseline_depth` steps.
      runs: PTRM, ordered by sigma as given, then seed.
      task: puzzle type whose rules answers were checked against, or None.
      strata: as `Dataset.strata`, of the puzzles that have labels.
    """

    search: Search
    deterministic: Run
    runs: tuple[Run, ...]
    task: str | None = None
    strata: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def is_blind(self) -> bool:
        """Whether no puzzle has a known answer, so that there is nothing to score."""
        return not len(self.deterministic.rollouts.correct)

    def runs_of(self, sigma: float) -> list[Run]:
        """The runs of one sigma, one for each seed."""
        return [run for run in self.runs if run.sigma == sigma]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result(Outcome):
    """A finished sweep.

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


def assemble_outcome(workload: Workload, finished: Mapping[Unit, Finished]) -> Outcome:
    """The outcome of the units of a workload; a `Result` if it is a sweep.

    Raises:
      IncompleteError: some are missing.
    """
    puzzles = workload.puzzles
    if isinstance(workload, Sweep):
        return assemble_result(
            workload.config,
            workload.provenance,
            workload.runs,
            finished,
            puzzles.task,
            puzzles.strata,
        )
    first, others, strata = _join(workload.runs, finished, puzzles.strata)
    return Outcome(workload.search, first, others, puzzles.task, strata)


def assemble_result(
    config: SweepConfig,
    provenance: dict[str, Any],
    runs: Sequence[Sequence[Unit]],
    finished: Mapping[Unit, Finished],
    task: str | None,
    strata: Mapping[str, np.ndarray],
) -> Result:
    """The result of all units of a sweep.

    Args:
      config: of the sweep.
      provenance: of the sweep.
      runs: of `plan_runs`.
      finished: the units that are there.
      task: as `Dataset.task`.
      strata: as `Dataset.strata`, of its puzzles.

    Raises:
      IncompleteError: some are missing.
    """
    first, others, strata = _join(runs, finished, strata)
    return Result(
        search=config,
        deterministic=first,
        runs=others,
        task=task,
        strata=strata,
        provenance=provenance,
    )


def _join(
    runs: Sequence[Sequence[Unit]],
    finished: Mapping[Unit, Finished],
    strata: Mapping[str, np.ndarray],
) -> tuple[Run, tuple[Run, ...], dict[str, np.ndarray]]:
    units = {unit for run in runs for unit in run}
    if missing := len(units - finished.keys()):
        raise IncompleteError(
            f"{missing} of {len(units)} units of the sweep are missing; rerun the same command, or "
            "the shards that have not finished"
        )
    first, *others = (_as_run([finished[unit] for unit in run]) for run in runs)
    labelled = _labelled(first.measured)
    return first, tuple(others), {name: kinds[labelled] for name, kinds in strata.items()}


def _labelled(measured: Measured) -> np.ndarray:
    """[B] bool: puzzles whose answers can be right or wrong."""
    return ~np.isnan(measured.cell_accuracy[:, 0, 0])


def _as_run(parts: list[Finished]) -> Run:
    measured, unit = assemble(parts), parts[0].unit
    labelled = _labelled(measured)
    names = ("correct", "q_logit", "finite", "valid", "cell_accuracy")
    digest = measured.answer[labelled]
    return Run(
        unit.sigma,
        unit.seed,
        Rollouts(
            **{name: getattr(measured, name)[labelled] for name in names},
            answer_id=metrics.digest_ids(digest),
            digest=digest,
        ),
        sum(part.seconds for part in parts),
        sum(part.compile_seconds for part in parts),
        measured,
        Chosen(*np.moveaxis(measured.chosen[labelled, 0], -1, 0)) if unit.stop else None,
    )


def kept_answers(result: Result, run: Run, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The answers of a run, read as its sweep says, after `depth` steps; all puzzles.

    Args:
      result: with `keep_answers` "last" or "all".
      run: of it.
      depth: of the steps that were kept; a stopping rule has its answers at its own steps.

    Returns:
      tokens [B, K, S], Q and finite [B, K]; K is 1 with a stopping rule.
    """
    measured, config = run.measured, result.config
    if run.chosen is not None:
        return measured.tokens[:, :, 0], measured.q_logit[..., 0], measured.finite[..., 0]
    steps = steps_to_keep(config.keep_answers, config.depth, measured.finite.shape[-1])
    tokens, kept = measured.tokens, steps.index(depth)
    if config.read == "last":
        return tokens[:, :, kept], measured.q_logit[..., depth - 1], measured.finite[..., depth - 1]
    step = metrics.best_steps(measured.q_logit, measured.finite)[..., depth - 1 : depth]
    q_logit, finite = (
        np.take_along_axis(x, step, axis=2)[..., 0] for x in (measured.q_logit, measured.finite)
    )
    if config.keep_answers == "last":  # kept at their best
        return tokens[:, :, kept], q_logit, finite
    return np.take_along_axis(tokens, step[..., None], axis=2)[:, :, 0], q_logit, finite
