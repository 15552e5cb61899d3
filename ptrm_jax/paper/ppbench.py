"""Pencil Puzzle Bench, six types on 10x10 cells: K = 100, D = 48, sigma 0.2, three seeds.

    python experiments/ptrm_sweep.py ppbench --checkpoint DIR --data DATA

DATA is `ppbench-golden`, the golden set of the package ppbench (`pip install -e ".[ppbench]"`), 61
puzzles of which 49 count; the hub's `full_dataset.jsonl`; or JSON lines with problem and answer
written out. Of every file the sizes that the paper keeps are solved. The checkpoint must have the
vocabulary of `ptrm_jax.tasks.ppbench`: the paper does not list its own.

Paper: golden set, means of three seeds, TRM at D = 16 62.6 %, at D = 48 66.0 %; best-Q@100 at
D = 16 89.8 %, at D = 48 91.2 %. By type (sudoku, lightup, nurikabe, heyawake, tapa): 97.8, 100,
88.9, 85.7, 80.0 for K = 100 and D = 48; 46.7, 87.5, 74.1, 85.7, 40.0 for TRM at D = 16. $0.001 per
puzzle.

Adds the paper's Table 1: the aggregate over five types, in which every puzzle weighs the same and
shakashaka is left out, and each type; and what a puzzle cost at an H100's $2.50 per hour, which
means something only there. For each seed a puzzle takes 4,800 rollout-steps, of 34 GFLOP if the
model has the size and cycles of Sudoku-Extreme's, which the paper does not say: on one H100 at an
assumed 400 TFLOP/s in bfloat16 (not measured: no accelerator was at hand) 0.4 seconds.
"""

import json

import numpy as np
from etils import epath

from ptrm_jax import markdown
from ptrm_jax.errors import InputError
from ptrm_jax.files import signed, write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Result, Sweep, SweepConfig
from ptrm_jax.sweep.scores import best_q, over_seeds, pass_at, valid_then_q
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
    methods = {}
    depths = sorted({*config.grid_depths, config.depth})
    for depth in sorted({*depths, config.baseline_depth}):
        values = over_seeds([result.deterministic], pass_at, 1, depth)
        methods[f"TRM, D={depth}"] = values
    for sigma in config.sigmas:
        runs = result.runs_of(sigma)
        for depth in depths:
            for name, k, choice in (
                ("one rollout (mean)", 1, pass_at),
                (f"best-Q@{config.rollouts}", config.rollouts, best_q),
                (f"valid-then-Q@{config.rollouts} (*)", config.rollouts, valid_then_q),
                (f"pass@{config.rollouts} (bound)", config.rollouts, pass_at),
            ):
                values = over_seeds(runs, choice, k, depth)
                methods[f"sigma {sigma:g}, D={depth}, {name}"] = values
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
    found = {"methods": plain, "seconds_per_puzzle": seconds, "dollars_per_puzzle": dollars}
    write_text(directory / "ppbench.json", json.dumps(signed(found), indent=1) + "\n")
    platform = result.provenance["platform"]
    return (
        f"{_markdown(scores)}\n"
        f"{seconds:.3g} seconds of PTRM per puzzle on {platform['devices']} x "
        f"{platform['device_kind']}; at $2.50 per hour, an H100's, ${dollars:.2g}\n"
    )


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
