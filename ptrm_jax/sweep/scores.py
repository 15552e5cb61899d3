"""All scores of a sweep, computed once: what tables, files, pictures and cards show.

Everything that is printed, written or drawn is a function of `Scores`, and computes no metric.

Shape letters: B puzzles, K rollouts, D supervision steps, R seeds.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np

from ptrm_jax import metrics
from ptrm_jax.config import Read, Stop
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.metrics.calibration import replay_on
from ptrm_jax.sweep.config import SweepConfig, powers_of_two
from ptrm_jax.sweep.result import Outcome, Result, Run

OutcomeT = TypeVar("OutcomeT", bound=Outcome)

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
READS: tuple[Read, ...] = get_args(Read)
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


class Stopped(NamedTuple):
    """What a stopping rule gives for B puzzles.

    Attributes:
      correct: [B] float64, 1 where its answer is right.
      valid: [B] float64, 1 where its answer satisfies the rules.
      rollout_steps: [B] supervision steps that it needs.
    """

    correct: np.ndarray
    valid: np.ndarray
    rollout_steps: np.ndarray


def by_rule(run: Run, rule: Stop) -> Stopped:
    """What a rule gives: as it ran, or replayed from rollouts that ran to the full depth."""
    rollouts = run.rollouts
    assert rollouts.valid is not None
    if run.chosen is not None:
        correct, valid = rollouts.correct[:, 0, 0], rollouts.valid[:, 0, 0]
        return Stopped(correct.astype(float), valid.astype(float), run.chosen.rollout_steps)
    found = replay_on(rollouts, rule)
    correct, valid = (found.of(x).astype(float) for x in (rollouts.correct, rollouts.valid))
    return Stopped(correct, valid, found.rollout_steps)


def read_at(outcome: OutcomeT, read: Read) -> OutcomeT:
    """The outcome with every rollout read at its last or at its best step."""

    def again(run: Run) -> Run:
        return run if run.chosen else dataclasses.replace(run, rollouts=run.rollouts.read(read))

    return dataclasses.replace(
        outcome,
        deterministic=again(outcome.deterministic),
        runs=tuple(again(run) for run in outcome.runs),
    )


def over_seeds(runs: list[Run], choice: Choice, k: int, depth: int) -> np.ndarray:
    """A choice's correctness per seed and puzzle: [R, B] float64."""
    return np.stack([choice(run.rollouts, k, depth) for run in runs])


# --- Scores --------------------------------------------------------------------------------------


class MethodScore(NamedTuple):
    """One method at full depth: a line of the summary.

    Attributes:
      method: "TRM" or "PTRM".
      sigma: noise scale, 0 for TRM.
      choice: "deterministic", "mean" of the rollouts, one of CHOICES, or "stop", a stopping rule.
      rollouts: k; with a rule the most.
      depth: supervision steps.
      accuracy: fraction of puzzles solved exactly, over puzzles, mean over seeds.
      seed_spread: standard deviation over seeds of that fraction; NaN for one seed.
      gain_equal_depth: accuracy minus that of deterministic TRM at D, read alike (a rule reads at
        the best), paired by puzzle; None for TRM.
      gain_equal_compute: accuracy minus that of deterministic TRM at K * D, paired; None where it
        was not run.
      validity: fraction of puzzles whose answer satisfies the rules, equal to the label or not;
        None where no rules are known.
      read: the step at which rollouts are read: "last" or "best".
      rollout_steps: supervision steps of single rollouts, mean over puzzles and seeds.
      rule: of "stop", None otherwise.
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
    read: Read
    rollout_steps: float
    rule: Stop | None = None


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
      rollout_steps: supervision steps of single rollouts, summed over puzzles.
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
      accuracy: in the order of `Scores.strata_columns`.
    """

    name: str
    num_puzzles: int
    accuracy: tuple[Interval, ...]


class StopCurve(NamedTuple):
    """How many puzzles a rule has solved by the rollout-steps that it needs for them.

    Attributes:
      rollout_steps: [n] in ascending order.
      solved: [n] fraction of the puzzles that are solved with at most so many.
    """

    rollout_steps: np.ndarray
    solved: np.ndarray


class Scores(NamedTuple):
    """All scores of a sweep.

    Attributes:
      config: settings of the sweep.
      provenance: everything that decides its result, as JSON.
      has_rules: whether answers were checked against rules.
      methods: deterministic TRM at equal depth and compute, then PTRM by sigma and choice.
      runs: the deterministic run, then PTRM by sigma and seed.
      trm_by_depth: deterministic TRM after every step 1..`baseline_depth`.
      curves: by sigma; empty with a stopping rule.
      best: of the sigmas the line of highest accuracy: best-Q, or the stopping rule.
      strata: by name of the split, its kinds at the sigma of `best`.
      strata_columns: titles of their accuracies.
      stop_curves: by sigma; empty without a stopping rule.
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
    strata_columns: tuple[str, ...]
    stop_curves: Mapping[float, StopCurve]

    @property
    def headline(self) -> list[str]:
        """As `headline`."""
        return headline(self.config, self.provenance)

    @property
    def baselines(self) -> tuple[MethodScore, ...]:
        """Deterministic TRM at equal depth and, if it was run, at equal compute."""
        read = self.best.read
        return tuple(x for x in self.methods if (x.method, x.read) == ("TRM", read))

    def line(self, sigma: float, choice: str) -> MethodScore:
        """PTRM's line of one sigma and choice, read as the sweep says.

        Raises:
          InputError: a sweep with a stopping rule has no such line.
        """
        read = "best" if choice == "stop" else self.config.read
        wanted = ("PTRM", sigma, choice, read)
        for x in self.methods:
            if (x.method, x.sigma, x.choice, x.read) == wanted:
                return x
        raise InputError(
            f"{choice} must be scored from rollouts that ran to the full depth; this sweep has "
            f"stop_q {self.config.stop_q}; run it without"
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
    rule = "" if config.stop is None else f", {_rule_in_words(config.stop)}"
    read = ", read at the best step" if config.read == "best" and not rule else ""
    lines = [
        f"{model['name']} ({model['digest'][:8]}) on {data['name']} ({data['digest'][:8]}), "
        f"{data['num_puzzles']} of {data['of']} puzzles",
        f"K={config.rollouts}, D={config.depth}, noise on {config.noise_on} before {when}, "
        f"{'seeds' if len(config.seeds) > 1 else 'seed'} {seeds}{read}{rule}",
    ]
    langevin = config.langevin
    if langevin is not None:
        updates = "update" if langevin.num_updates == 1 else "updates"
        lines.append(
            f"PTRM with {langevin.num_updates} Langevin {updates} of z between steps, step size "
            f"{langevin.step_size:g}" + ("" if langevin.gradient else ", noise without gradient")
        )
    return lines


def _rule_in_words(rule: Stop) -> str:
    words = [f"stops at Q >= {rule.q_logit:g}"]
    words += [f"for {rule.patience} steps"] if rule.patience > 1 else []
    words += [f"from step {rule.min_depth}"] if rule.min_depth > 1 else []
    words += [f"of {rule.agree} rollouts that agree"] if rule.agree > 1 else []
    if rule.max_rollout_steps is not None:
        words.append(f"or after {rule.max_rollout_steps} rollout-steps")
    return " ".join(words)


def compute(result: Result) -> Scores:
    """All scores of a sweep."""
    config = result.config
    methods = summary(result)
    ranked = ("best_q", config.read) if config.stop is None else ("stop", "best")
    lines = [line for line in methods if (line.choice, line.read) == ranked]
    best = max(lines, key=lambda line: line.accuracy.mean)
    result = read_at(result, config.read)
    quiet = result.deterministic.rollouts
    titles, strata = _strata(result, best)
    sigmas = config.sigmas
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
        curves={} if config.stop else {sigma: _curves(result, sigma) for sigma in sigmas},
        best=best,
        strata=strata,
        strata_columns=titles,
        stop_curves={s: _stop_curve(result, s) for s in sigmas} if config.stop else {},
    )


def _stop_curve(result: Result, sigma: float) -> StopCurve:
    runs = [by_rule(run, result.config.rules[0]) for run in result.runs_of(sigma)]
    steps = np.concatenate([run.rollout_steps for run in runs])
    correct = np.concatenate([run.correct for run in runs])
    order = np.argsort(steps, kind="stable")
    return StopCurve(steps[order], np.cumsum(correct[order]) / len(steps))


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
    """Deterministic TRM at equal depth and compute, then PTRM by sigma and choice.

    TRM and best-Q are read at the last and at the best step, the other choices as the search says;
    last come the stopping rules.
    """
    search = outcome.search
    read = {read: read_at(outcome, read) for read in READS}
    base = {name: baselines(other) for name, other in read.items()}
    lines = [
        _trm(read[name], name, depth, base[name][kind])
        for kind, depth in (("equal_depth", search.depth), ("equal_compute", search.baseline_depth))
        if kind in base["last"]
        for name in READS
    ]
    methods: list[tuple[str, Read]] = []
    if search.stop is None:
        methods = [(name, search.read) for name in ("mean", *choices(outcome))]
        other: Read = "best" if search.read == "last" else "last"
        methods.insert(2, ("best_q", other))
    for sigma in search.sigmas:
        lines += [_ptrm(read[name], name, sigma, choice, base[name]) for choice, name in methods]
        lines += [_stopping(outcome, sigma, rule, base["best"]) for rule in search.rules]
    return lines


def _trm(outcome: Outcome, read: Read, depth: int, correct: np.ndarray) -> MethodScore:
    quiet = outcome.deterministic.rollouts.at(depth)
    assert quiet.valid is not None
    return MethodScore(
        method="TRM",
        sigma=0.0,
        choice="deterministic",
        rollouts=1,
        depth=depth,
        accuracy=metrics.interval(correct),
        seed_spread=math.nan,
        gain_equal_depth=None,
        gain_equal_compute=None,
        validity=_validity(outcome, quiet.valid[None, :, 0].astype(float)),
        read=read,
        rollout_steps=depth,
    )


def _ptrm(
    outcome: Outcome, read: Read, sigma: float, name: str, base: Mapping[str, np.ndarray]
) -> MethodScore:
    search, runs = outcome.search, outcome.runs_of(sigma)
    choice, k = (pass_at, 1) if name == "mean" else (CHOICES[name], search.rollouts)
    values = over_seeds(runs, choice, k, search.depth)
    valid = None
    if outcome.task is not None:
        valid = over_seeds(runs, validity(choice), k, search.depth)
    return MethodScore(
        method="PTRM",
        sigma=sigma,
        choice=name,
        rollouts=k,
        depth=search.depth,
        **_against(values, base),
        validity=_validity(outcome, valid),
        read=read,
        rollout_steps=k * search.depth,
    )


def _stopping(
    outcome: Outcome, sigma: float, rule: Stop, base: Mapping[str, np.ndarray]
) -> MethodScore:
    search = outcome.search
    found = [by_rule(run, rule) for run in outcome.runs_of(sigma)]
    return MethodScore(
        method="PTRM",
        sigma=sigma,
        choice="stop",
        rollouts=search.rollouts,
        depth=search.depth,
        **_against(np.stack([run.correct for run in found]), base),
        validity=_validity(outcome, np.stack([run.valid for run in found])),
        read="best",
        rollout_steps=float(np.mean([run.rollout_steps for run in found])),
        rule=rule,
    )


def _against(values: np.ndarray, base: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy, and gains over deterministic TRM: [R, B] values, [B] each of the others."""
    gains = {
        kind: metrics.paired_difference(values, np.broadcast_to(other, values.shape))
        for kind, other in base.items()
    }
    return {
        "accuracy": metrics.interval(values),
        "seed_spread": metrics.seed_spread(values.mean(axis=1)),
        "gain_equal_depth": gains["equal_depth"],
        "gain_equal_compute": gains.get("equal_compute"),
    }


def _validity(outcome: Outcome, valid: np.ndarray | None) -> Interval | None:
    return None if valid is None or outcome.task is None else metrics.interval(valid)


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
    rollout_steps = run.rollouts.correct.size
    if run.chosen is not None:
        num_rollouts, depth = result.config.rollouts, result.config.depth
        rollout_steps = int(run.chosen.rollout_steps.sum())
        share = run.chosen.rollout_steps / (num_rollouts * depth)
        figures["share_of_rollout_steps"] = metrics.interval(share)._asdict()
        figures["stopped"] = metrics.interval(run.chosen.stopped.astype(float))._asdict()
    else:
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
        rollout_steps=rollout_steps,
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


def _strata(result: Result, best: MethodScore) -> tuple[tuple[str, ...], dict[str, list[Stratum]]]:
    """Titles of the columns, and the kinds of every split, at the sigma of `best`."""
    config, runs = result.config, result.runs_of(best.sigma)
    k, depth = config.rollouts, config.depth
    columns = {f"TRM D={depth}": over_seeds([result.deterministic], pass_at, 1, depth)}
    if best.rule is None:
        columns[f"best-Q@{k}"] = over_seeds(runs, best_q, k, depth)
        columns[f"pass@{k}"] = over_seeds(runs, pass_at, k, depth)
    else:
        columns["stopping rule"] = np.stack([by_rule(run, best.rule).correct for run in runs])
    return tuple(columns), {
        name: [
            Stratum(
                kind,
                int((kinds == kind).sum()),
                tuple(metrics.interval(values[:, kinds == kind]) for values in columns.values()),
            )
            for kind in sorted(set(kinds.tolist()), key=_number_first)
        ]
        for name, kinds in result.strata.items()
    }


def _number_first(kind: str) -> tuple[float, str]:
    """Sorts kinds by their first number, the others by name behind them."""
    number = re.match(r"[0-9]+(\.[0-9]+)?", kind)
    return (float(number[0]) if number else math.inf, kind)
