"""All scores of a sweep, computed once: what tables, files, pictures and cards show.

Everything that is printed, written or drawn is a function of `Scores`, and computes no metric.

Shape letters: B puzzles, K rollouts, D supervision steps, R seeds.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ptrm_jax import metrics
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.sweep.config import SweepConfig, powers_of_two
from ptrm_jax.sweep.result import Outcome, Result, Run

# --- Choices: how one answer is chosen among k rollouts ------------------------------------------


def best_q(rollouts: Rollouts, k: int, depth: int) -> np.ndarray:
    """Expected best-Q@k of every puzzle after step `depth`: [B] float64."""
    return metrics.best_q_at_k(rollouts.at(depth), k)


def valid_then_q(rollouts: Rollouts, k: int, depth: int) -> np.ndarray:
    """Expected valid-then-Q@k of every puzzle after step `depth`: [B] float64.

    The best Q among answers that satisfy the rules, if any do. Not PTRM: it has a verifier.
    """
    return metrics.best_q_at_k(rollouts.at(depth), k, prefer_valid=True)


def pass_at(rollouts: Rollouts, k: int, depth: int) -> np.ndarray:
    """Unbiased pass@k of every puzzle after step `depth`: [B] float64. An upper bound."""
    return metrics.pass_at_k(rollouts.at(depth).correct, k)


def mode_at(rollouts: Rollouts, k: int, depth: int) -> np.ndarray:
    """Expected mode@k of every puzzle after step `depth`: [B] float64."""
    return metrics.mode_at_k(rollouts.at(depth), k)


Choice = Callable[[Rollouts, int, int], np.ndarray]
"""(rollouts [B, K, D], k, depth) -> how often the chosen answer is right, [B] float64."""

CHOICES: dict[str, Choice] = {
    "best_q": best_q,
    "mode": mode_at,
    "valid_then_q": valid_then_q,
    "pass": pass_at,
}
"""Ways to choose one answer among k rollouts. "pass" is the upper bound that labels would give;
"valid_then_q" needs the rules."""

CHOICE_NAMES = {"best_q": "best-Q", "mode": "mode", "valid_then_q": "valid-then-Q", "pass": "pass"}
"""Their names in tables."""


def choices(outcome: Outcome) -> dict[str, Choice]:
    """The choices that an outcome allows."""
    has_rules = outcome.task is not None
    return {name: f for name, f in CHOICES.items() if has_rules or name != "valid_then_q"}


def validity(choice: Choice) -> Choice:
    """How often the answer that `choice` picks satisfies the rules, right or not."""

    def valid(rollouts: Rollouts, k: int, depth: int) -> np.ndarray:
        return choice(rollouts.scored_by_rules(), k, depth)

    return valid


def over_seeds(runs: list[Run], choice: Choice, k: int, depth: int) -> np.ndarray:
    """A choice's correctness per seed and puzzle: [R, B] float64."""
    return np.stack([choice(run.rollouts, k, depth) for run in runs])


# --- Scores --------------------------------------------------------------------------------------


class MethodScore(NamedTuple):
    """One method at full depth: a line of the summary.

    Attributes:
      method: "TRM" or "PTRM".
      sigma: noise scale, 0 for TRM.
      choice: "deterministic", "mean" of the rollouts, or one of CHOICES.
      rollouts: k.
      depth: supervision steps.
      accuracy: fraction of puzzles solved exactly, over puzzles, mean over seeds.
      seed_spread: standard deviation over seeds of that fraction; NaN for one seed.
      gain_equal_depth: accuracy minus that of deterministic TRM at D, paired by puzzle; None for
        TRM.
      gain_equal_compute: accuracy minus that of deterministic TRM at K * D, paired; None where it
        was not run.
      validity: fraction of puzzles whose answer satisfies the rules, equal to the label or not;
        None where no rules are known.
    """

    method: str
    sigma: float
    choice: str
    rollouts: int
    depth: int
    accuracy: Interval
    seed_spread: float
    gain_equal_depth: Interval | None
    gain_equal_compute: Interval | None
    validity: Interval | None


class RunScore(NamedTuple):
    """One (sigma, seed) at full width and depth.

    Attributes:
      method: "TRM" or "PTRM".
      sigma: noise scale.
      seed: the user's integer.
      rollouts: K.
      depth: D.
      langevin: settings of Langevin updates, as JSON, or None.
      seconds: wall time without compilation.
      compile_seconds: time of compilation.
      rollout_steps: supervision steps of single rollouts.
      figures: by name, intervals and numbers, as JSON.
      q_auc: area under the ROC curve of Q over all rollouts.
      q_sign_accuracy: fraction of rollouts whose Q has the sign of the truth.
      q_right: Q of the finite rollouts that are right, [N] float32 logits.
      q_wrong: Q of those that are wrong.
    """

    method: str
    sigma: float
    seed: int
    rollouts: int
    depth: int
    langevin: dict[str, Any] | None
    seconds: float
    compile_seconds: float
    rollout_steps: int
    figures: dict[str, Any]
    q_auc: Interval
    q_sign_accuracy: float
    q_right: np.ndarray
    q_wrong: np.ndarray


class SigmaCurves(NamedTuple):
    """How accuracy at one sigma changes with width and depth.

    Attributes:
      by_width: by choice, at every width of `Search.widths` and full depth.
      best_q_by_depth: best-Q@K after every step 1..D.
      mean_by_depth: mean accuracy of one rollout after every step 1..D, [D] float64.
      q_auc: area under the ROC curve of Q, mean over seeds.
      grid: best-Q at every (width, depth) of the grid, rows in the order of `grid_rollouts`.
    """

    by_width: Mapping[str, list[Interval]]
    best_q_by_depth: list[Interval]
    mean_by_depth: np.ndarray
    q_auc: float
    grid: list[list[Interval]]


class Stratum(NamedTuple):
    """Puzzles of one kind at one sigma.

    Attributes:
      name: of the kind.
      num_puzzles: of this kind.
      accuracy: TRM at D, best-Q@K and pass@K.
    """

    name: str
    num_puzzles: int
    accuracy: tuple[Interval, Interval, Interval]


class Scores(NamedTuple):
    """All scores of a sweep.

    Attributes:
      config: settings of the sweep.
      provenance: everything that decides its result, as JSON.
      has_rules: whether answers were checked against rules.
      methods: deterministic TRM at equal depth and compute, then PTRM by sigma and choice.
      runs: the deterministic run, then PTRM by sigma and seed.
      trm_by_depth: deterministic TRM after every step 1..`baseline_depth`.
      curves: by sigma.
      best: the best-Q line of highest accuracy among the sigmas.
      strata: by name of the split, its kinds at the sigma of `best`.
    """

    config: SweepConfig
    provenance: dict[str, Any]
    has_rules: bool
    methods: tuple[MethodScore, ...]
    runs: tuple[RunScore, ...]
    trm_by_depth: list[Interval]
    curves: Mapping[float, SigmaCurves]
    best: MethodScore
    strata: Mapping[str, list[Stratum]]

    @property
    def headline(self) -> list[str]:
        """As `headline`."""
        return headline(self.config, self.provenance)

    @property
    def baselines(self) -> tuple[MethodScore, ...]:
        """Deterministic TRM at equal depth and, if it was run, at equal compute."""
        return tuple(line for line in self.methods if line.method == "TRM")

    def line(self, sigma: float, choice: str) -> MethodScore:
        """PTRM's line of one sigma and choice."""
        return next(
            x for x in self.methods if (x.method, x.sigma, x.choice) == ("PTRM", sigma, choice)
        )


def headline(config: SweepConfig, provenance: Mapping[str, Any]) -> list[str]:
    """Checkpoint and data, then settings: two lines, and a third for Langevin updates.

    Args:
      config: settings of the sweep.
      provenance: of the sweep.
    """
    when = "every step" if config.noise_when == "every" else "the first step"
    seeds = ", ".join(str(seed) for seed in config.seeds)
    model, data = provenance["checkpoint"], provenance["data"]
    lines = [
        f"{model['name']} ({model['digest'][:8]}) on {data['name']} ({data['digest'][:8]}), "
        f"{data['num_puzzles']} of {data['of']} puzzles",
        f"K={config.rollouts}, D={config.depth}, noise on {config.noise_on} before {when}, "
        f"{'seeds' if len(config.seeds) > 1 else 'seed'} {seeds}",
    ]
    langevin = config.langevin
    if langevin is not None:
        updates = "update" if langevin.num_updates == 1 else "updates"
        lines.append(
            f"PTRM with {langevin.num_updates} Langevin {updates} of z between steps, step size "
            f"{langevin.step_size:g}" + ("" if langevin.gradient else ", noise without gradient")
        )
    return lines


def compute(result: Result) -> Scores:
    """All scores of a sweep."""
    methods = summary(result)
    best = max((x for x in methods if x.choice == "best_q"), key=lambda x: x.accuracy.mean)
    quiet = result.deterministic.rollouts
    return Scores(
        config=result.config,
        provenance=result.provenance,
        has_rules=result.task is not None,
        methods=tuple(methods),
        runs=tuple(_run_score(result, run) for run in (result.deterministic, *result.runs)),
        trm_by_depth=[
            metrics.interval(quiet.at(d).correct[:, 0].astype(float))
            for d in range(1, quiet.correct.shape[2] + 1)
        ],
        curves={sigma: _curves(result, sigma) for sigma in result.config.sigmas},
        best=best,
        strata=_strata(result, best.sigma),
    )


def baselines(outcome: Outcome) -> dict[str, np.ndarray]:
    """Deterministic TRM per puzzle at equal depth and, if it was run, at equal compute: [B]."""
    search = outcome.search
    depths = {"equal_depth": search.depth}
    if search.equal_compute:
        depths["equal_compute"] = search.baseline_depth
    return {
        name: outcome.deterministic.rollouts.at(depth).correct[:, 0].astype(np.float64)
        for name, depth in depths.items()
    }


def summary(outcome: Outcome) -> list[MethodScore]:
    """Deterministic TRM at equal depth and compute, then PTRM by sigma and choice."""
    search = outcome.search
    base = baselines(outcome)

    def rules(runs: list[Run], choice: Choice, k: int, depth: int) -> Interval | None:
        if outcome.task is None:
            return None
        return metrics.interval(over_seeds(runs, validity(choice), k, depth))

    lines = []
    depths = (search.depth, search.baseline_depth)
    for depth, values in zip(depths, base.values(), strict=False):
        lines.append(
            MethodScore(
                method="TRM",
                sigma=0.0,
                choice="deterministic",
                rollouts=1,
                depth=depth,
                accuracy=metrics.interval(values),
                seed_spread=math.nan,
                gain_equal_depth=None,
                gain_equal_compute=None,
                validity=rules([outcome.deterministic], pass_at, 1, depth),
            )
        )
    methods: dict[str, tuple[Choice, int]] = {"mean": (pass_at, 1)}
    methods |= {name: (choice, search.rollouts) for name, choice in choices(outcome).items()}
    for sigma in search.sigmas:
        runs = outcome.runs_of(sigma)
        for name, (choice, k) in methods.items():
            values = over_seeds(runs, choice, k, search.depth)
            gains = {
                kind: metrics.paired_difference(values, np.broadcast_to(other, values.shape))
                for kind, other in base.items()
            }
            lines.append(
                MethodScore(
                    method="PTRM",
                    sigma=sigma,
                    choice=name,
                    rollouts=k,
                    depth=search.depth,
                    accuracy=metrics.interval(values),
                    seed_spread=metrics.seed_spread(values.mean(axis=1)),
                    gain_equal_depth=gains["equal_depth"],
                    gain_equal_compute=gains.get("equal_compute"),
                    validity=rules(runs, choice, k, search.depth),
                )
            )
    return lines


def _run_score(result: Result, run: Run) -> RunScore:
    _, num_rollouts, depth = run.rollouts.correct.shape
    at = run.rollouts.at(depth)
    assert at.cell_accuracy is not None and at.valid is not None
    auc, sign = metrics.q_auc_interval(at), metrics.q_sign_accuracy(at)
    figures: dict[str, Any] = {
        "mean": metrics.interval(metrics.pass_at_k(at.correct, 1))._asdict(),
        "cell_accuracy": metrics.interval(at.cell_accuracy.mean(axis=1, dtype=float))._asdict(),
        "q_auc": auc._asdict(),
        "q_sign_accuracy": sign,
        "not_finite": int((~at.eligible).sum()),
    }
    if result.task is not None:
        figures["rules_hold"] = metrics.interval(at.valid.mean(axis=1))._asdict()
    for name, choice in choices(result).items():
        for k in powers_of_two(num_rollouts):
            figures[f"{name}@{k}"] = metrics.interval(choice(run.rollouts, k, depth))._asdict()
    deterministic = run is result.deterministic
    langevin = None if deterministic else result.config.langevin
    return RunScore(
        method="TRM" if deterministic else "PTRM",
        sigma=run.sigma,
        seed=run.seed,
        rollouts=num_rollouts,
        depth=depth,
        langevin=None if langevin is None else vars(langevin).copy(),
        seconds=run.seconds,
        compile_seconds=run.compile_seconds,
        rollout_steps=run.rollouts.correct.size,
        figures=figures,
        q_auc=auc,
        q_sign_accuracy=sign,
        q_right=at.q_logit[at.correct & at.eligible],
        q_wrong=at.q_logit[~at.correct & at.eligible],
    )


def _curves(result: Result, sigma: float) -> SigmaCurves:
    config, runs = result.config, result.runs_of(sigma)
    steps = range(1, config.depth + 1)

    def accuracy(choice: Choice, k: int, depth: int) -> Interval:
        return metrics.interval(over_seeds(runs, choice, k, depth))

    ends = [run.rollouts.at(config.depth) for run in runs]
    return SigmaCurves(
        by_width={
            name: [accuracy(choice, k, config.depth) for k in config.widths]
            for name, choice in choices(result).items()
        },
        best_q_by_depth=[accuracy(best_q, config.rollouts, d) for d in steps],
        mean_by_depth=np.array([over_seeds(runs, pass_at, 1, d).mean() for d in steps]),
        q_auc=float(np.mean([metrics.q_auc(at) for at in ends])),
        grid=[[accuracy(best_q, k, d) for d in config.grid_depths] for k in config.grid_rollouts],
    )


def _strata(result: Result, sigma: float) -> dict[str, list[Stratum]]:
    config, runs = result.config, result.runs_of(sigma)
    columns = (
        over_seeds([result.deterministic], pass_at, 1, config.depth),
        over_seeds(runs, best_q, config.rollouts, config.depth),
        over_seeds(runs, pass_at, config.rollouts, config.depth),
    )
    return {
        name: [
            Stratum(kind, int(rows.sum()), (of(columns[0]), of(columns[1]), of(columns[2])))
            for kind in sorted(set(kinds.tolist()), key=_number_first)
            for rows in [kinds == kind]
            for of in [functools.partial(_interval_of, rows)]
        ]
        for name, kinds in result.strata.items()
    }


def _interval_of(rows: np.ndarray, values: np.ndarray) -> Interval:
    return metrics.interval(values[:, rows])


def _number_first(kind: str) -> tuple[float, str]:
    """Sorts kinds by their first number, the others by name behind them."""
    number = re.match("[0-9.]+", kind)
    return (float(number[0]) if number else math.inf, kind)
