"""Pencil Puzzle Bench, six types on 10x10 cells: K = 100, D = 48, sigma 0.2, three seeds.

    python experiments/ptrm_sweep.py ppbench --checkpoint DIR --data DATA
    python experiments/ptrm_sweep.py ppbench --checkpoint pencil6

The second takes the bundled model of boards of up to 6x6 cells and its test set, with settings of
its own: K = 64, three sigmas, one seed.

DATA is `ppbench-golden`, the golden set of the package ppbench (`pip install -e ".[ppbench]"`), 61
puzzles of which 49 count; the hub's `full_dataset.jsonl`; or JSON lines with problem and answer
written out. Of every file the sizes that the paper keeps are solved, or, if it has none, the boards
of up to 6x6 cells, which need a checkpoint for these. The checkpoint must have the vocabulary of
`ptrm_jax.tasks.ppbench`: the paper does not list its own.

Paper: golden set, means of three seeds, TRM at D = 16 62.6 %, at D = 48 66.0 %; best-Q@100 at
D = 16 89.8 %, at D = 48 91.2 %. By type (sudoku, lightup, nurikabe, heyawake, tapa): 97.8, 100,
88.9, 85.7, 80.0 for K = 100 and D = 48; 46.7, 87.5, 74.1, 85.7, 40.0 for TRM at D = 16. $0.001 per
puzzle.

Adds the paper's Table 1 for each sigma: the aggregate over five types, in which every puzzle weighs
the same and shakashaka is left out, and each type, with TRM at the compute of all rollouts beside
it; other ways to choose or to stop, by type; how far best-Q is from pass@K (paper: less than 1
point) and what mode gains over TRM (paper: 1.3 points); and what a puzzle cost at an H100's $2.50
per hour, which means something only there. For each seed a puzzle takes 4,800 rollout-steps, of 34
GFLOP if the model has the size and cycles of Sudoku-Extreme's, which the paper does not say: on one
H100 at an assumed 400 TFLOP/s in bfloat16 (not measured: no accelerator was at hand) 0.4 seconds.
"""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
from etils import epath

from ptrm_jax import markdown
from ptrm_jax.config import Stop
from ptrm_jax.errors import InputError
from ptrm_jax.files import signed, write_text
from ptrm_jax.metrics import Interval, paired_difference
from ptrm_jax.sweep import Result, Run, Sweep, SweepConfig
from ptrm_jax.sweep.scores import (
    best_q,
    by_rule,
    mode_at,
    over_seeds,
    pass_at,
    read_at,
    valid_then_q,
)
from ptrm_jax.tasks import ppbench

CONFIG = SweepConfig(
    task="ppbench",
    sigmas=(0.2,),
    rollouts=100,
    depth=48,
    seeds=(0, 1, 2),
    num_puzzles=None,
)
GRID = ((1, 5, 10, 25, 100), (16, 48))
FOR_CHECKPOINTS = {
    "pencil6": dataclasses.replace(
        CONFIG,
        checkpoint="pencil6",
        data="pencil6",
        sigmas=(0.2, 0.5, 1.0),
        rollouts=64,
        seeds=(0,),
        num_puzzles=60,
        grid_rollouts=(1, 4, 16, 64),
        grid_depths=(16, 48),
    )
}


def check(sweep: Sweep) -> None:
    """Refuses data whose types are not known, or none of which counts.

    Raises:
      ValueError: they are not.
    """
    if sweep.config.stop is not None:
        raise InputError(
            "stop_q must be left out of ppbench, whose table needs rollouts of full depth; got "
            f"{sweep.config.stop_q}; its stopping rows are replayed: pass replay_q"
        )
    kinds = sweep.puzzles.strata.get("type")
    if kinds is None or not set(kinds.tolist()) & set(ppbench.REPORTED):
        raise InputError(
            f"data must have puzzles of {', '.join(ppbench.REPORTED)}, read from PPBench's files; "
            f"{sweep.puzzles.name} has none; pass ppbench-golden or a .jsonl file"
        )


def report(result: Result, directory: epath.Path) -> str:
    """Table 1 of the paper, Markdown, and the cost of a puzzle; also as `ppbench.json`.

    Args:
      result: a finished sweep of PPBench.
      directory: where the file goes.
    """
    config = result.config
    types = np.array([ppbench.TYPES.index(kind) for kind in result.strata["type"].tolist()])
    methods: dict[str, np.ndarray] = {}
    tables: list[str] = []
    gaps: dict[str, dict[str, Interval]] = {}
    depths = sorted({*config.grid_depths, config.depth})
    trm = {
        depth: over_seeds([result.deterministic], pass_at, 1, depth)
        for depth in sorted({*depths, config.baseline_depth})
    }
    methods |= {f"TRM, D={depth}": values for depth, values in trm.items()}
    k, read_best = config.rollouts, read_at(result, "best")
    for sigma in config.sigmas:
        runs = result.runs_of(sigma)
        best_runs = read_best.runs_of(sigma)
        found = {depth: _choices(runs, best_runs, k, depth) for depth in depths}
        for depth, by_name in found.items():
            methods |= {f"sigma {sigma:g}, D={depth}, {n}": v for n, v in by_name.items()}
        best = {depth: by_name[f"best-Q@{k}"] for depth, by_name in found.items()}
        tables.append(_table_1(sigma, trm, best, types, config))
        gaps[f"{sigma:g}"] = _differences(found[config.depth], trm, types, config)
    seconds = float(np.mean([run.seconds for run in result.runs])) / len(types)
    dollars = ppbench.dollars_per_puzzle(seconds)
    scores = {
        name: (ppbench.aggregate(values, types), ppbench.by_type(values, types))
        for name, values in methods.items()
    }
    plain = {
        name: {
            "aggregate": total._asdict(),
            "types": {pid: score._asdict() for pid, score in kinds.items()},
        }
        for name, (total, kinds) in scores.items()
    }
    written = {
        "methods": plain,
        "differences": {
            sigma: {name: found._asdict() for name, found in of_sigma.items()}
            for sigma, of_sigma in gaps.items()
        },
        "seconds_per_puzzle": seconds,
        "dollars_per_puzzle": dollars,
    }
    write_text(directory / "ppbench.json", json.dumps(signed(written), indent=1) + "\n")
    platform = result.provenance["platform"]
    lines = [
        [f"sigma {sigma}, D={config.depth}", name, difference.brief("+")]
        for sigma, of_sigma in gaps.items()
        for name, difference in of_sigma.items()
    ]
    parts = [
        *tables,
        _markdown(scores),
        markdown.table(["", "points, aggregate", "difference"], lines),
        f"{seconds:.3g} seconds of PTRM per puzzle on {platform['devices']} x "
        f"{platform['device_kind']}; at $2.50 per hour, an H100's, ${dollars:.2g}\n",
    ]
    return "\n".join(parts)


STOPS = (0.0, 3.0)
"""Thresholds on Q of the rules that stop a puzzle's rollouts."""


def _choices(runs: list[Run], read_best: list[Run], k: int, depth: int) -> dict[str, np.ndarray]:
    """By method, how often the answer is right, per seed and puzzle: [R, B] float64.

    Args:
      runs: one for each seed.
      read_best: the same, read at their best step.
      k: rollouts.
      depth: supervision steps.
    """
    found = {
        name: over_seeds(of, choice, width, depth)
        for name, width, choice, of in (
            ("one rollout (mean)", 1, pass_at, runs),
            (f"best-Q@{k}", k, best_q, runs),
            (f"best-Q@{k}, read at highest Q", k, best_q, read_best),
            (f"mode@{k}", k, mode_at, runs),
            (f"valid-then-Q@{k} (*)", k, valid_then_q, runs),
            (f"pass@{k} (bound)", k, pass_at, runs),
        )
    }
    for threshold in STOPS:
        short = [dataclasses.replace(run, rollouts=run.rollouts.up_to(depth)) for run in runs]
        stopped = [by_rule(run, Stop(threshold)) for run in short]
        share = 100 * np.mean([one.rollout_steps for one in stopped]) / (k * depth)
        name = f"stopped at Q >= {threshold:g} ({share:.0f} % of the steps)"
        found[name] = np.stack([one.correct for one in stopped])
    return found


def _differences(
    found: Mapping[str, np.ndarray],
    trm: Mapping[int, np.ndarray],
    types: np.ndarray,
    config: SweepConfig,
) -> dict[str, Interval]:
    """Differences of aggregates at full depth, paired by puzzle."""
    reported = types < len(ppbench.REPORTED)
    k, deep = config.rollouts, config.baseline_depth
    best, at_depth = found[f"best-Q@{k}"], trm[config.depth]
    pairs = {
        f"best-Q@{k} - TRM, D={config.depth}": (best, at_depth),
        f"best-Q@{k} - TRM, D={deep}": (best, trm[deep]),
        f"pass@{k} - best-Q@{k}": (found[f"pass@{k} (bound)"], best),
        f"mode@{k} - TRM, D={config.depth}": (found[f"mode@{k}"], at_depth),
    }
    return {
        name: paired_difference(*(x.mean(axis=0)[reported] for x in pair))
        for name, pair in pairs.items()
    }


def _table_1(
    sigma: float,
    trm: Mapping[int, np.ndarray],
    best: Mapping[int, np.ndarray],
    types: np.ndarray,
    config: SweepConfig,
) -> str:
    """The paper's Table 1 at one sigma: a row per type, TRM and best-Q by depth, with intervals."""
    columns = {f"K=1, D={depth}": trm[depth] for depth in best}
    columns |= {f"K={config.rollouts}, D={depth}": values for depth, values in best.items()}
    columns[f"K=1, D={config.baseline_depth}"] = trm[config.baseline_depth]
    kinds = {name: ppbench.by_type(values, types) for name, values in columns.items()}
    totals = {name: ppbench.aggregate(values, types) for name, values in columns.items()}
    first = next(iter(kinds.values()))
    rows = [
        [f"{pid} ({score.num_puzzles})", *(kinds[name][pid].brief() for name in columns)]
        for pid, score in first.items()
    ]
    count = next(iter(totals.values())).num_puzzles
    total = [f"aggregate of {len(ppbench.REPORTED)} types ({count})"]
    rows.append([*total, *(found.brief() for found in totals.values())])
    return markdown.table([f"sigma {sigma:g}, best-Q", *columns], rows, align_right=True)


def _markdown(scores: dict[str, tuple[Interval, dict[str, Interval]]]) -> str:
    """A Markdown table of accuracies in percent: a row per method, a column per type."""
    rows = [
        [name, total.percent(), *(f"{100 * score.mean:.1f}" for score in kinds.values())]
        for name, (total, kinds) in scores.items()
    ]
    _, kinds = next(iter(scores.values()))
    columns = [f"{pid} ({score.num_puzzles})" for pid, score in kinds.items()]
    titles = ["method", f"aggregate of {len(ppbench.REPORTED)} types", *columns]
    return markdown.table(titles, rows, align_right=True)
