"""ARC-AGI-2 (and -1): K = 25, D = 16, sigma 0.2, then the vote over augmentations.

    python experiments/ptrm_sweep.py arc-agi-2 --checkpoint DIR --data DATA

DATA is the folder that the checkpoint was trained on, `data/arc2concept-aug-1000` of upstream's, or
one that `python -m ptrm_jax arc-folder` made of the JSON files: every augmented task has its row of
the puzzle embedding, so identifiers must be those of the training. Paper: TRM pass@1 7.36 %, pass@2
9.72 %, pass@100 14.31 %; PTRM pass@1 8.47 %, pass@2 9.72 %, pass@100 15.97 %.

PTRM takes the best Q of the K rollouts of each augmentation, and augmentations vote. Beside that
stand TRM's own vote at equal depth and at equal compute, and two other votes of the rollouts.
Writes `arc_scores.json`, and `submission.json` of the first sigma and seed in Kaggle's format; of a
set none of whose outputs is known, the submission alone.

A row takes 400 rollout-steps of 239 GFLOP for PTRM and as many for TRM at equal compute; ARC-AGI-2
has 172 test inputs with about 1,000 augmentations each: 3.3e19 FLOP, on one H100 at an assumed 400
TFLOP/s in bfloat16 (not measured: no accelerator was at hand) a day. The same command serves
ARC-AGI-1 with its folder.
"""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from ptrm_jax.errors import DataError
from ptrm_jax.files import signed, write_text
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Result, Run, Sweep, SweepConfig
from ptrm_jax.sweep.result import kept_answers
from ptrm_jax.tasks import arc
from ptrm_jax.tasks.arc import vote as arc_vote

CONFIG = SweepConfig(
    sigmas=(0.2,),
    rollouts=25,
    depth=16,
    num_puzzles=None,
    keep_answers="last",
    unlabelled=True,
)


def check(sweep: Sweep) -> None:
    """Refuses data that are not a folder of ARC-AGI.

    Raises:
      DataError: they are not.
    """
    if sweep.puzzles.task is not None:
        raise DataError(
            f"{sweep.puzzles.name} must hold ARC-AGI; it holds puzzles of task "
            f"{sweep.puzzles.task!r}; pass a folder in upstream's layout"
        )
    _rows(sweep.config)


def report(result: Result, directory: epath.Path) -> str:
    """pass@k of every vote, accuracy per augmentation, and a submission.

    Args:
      result: a finished sweep of the test rows of a folder of ARC-AGI.
      directory: where the files go.

    Raises:
      DataError: the folder of the data has gone or is no folder of ARC-AGI.
    """
    rows = _solved_rows(result)
    if result.is_blind:
        return _blind(rows, result, directory)
    ks = arc_vote.PASS_KS
    lines = ["pass@k of the vote over augmentations, %", ""]
    lines.append(f"{'':<34}" + "".join(f"{f'pass@{k}':>20}" for k in ks))
    scores = []
    for name, run, depth, rule in _votes(result):
        answers, q, finite = kept_answers(result, run, depth)
        ballot = arc_vote.vote(rows, answers, q, finite=finite, rule=rule)
        score = arc_vote.score(ballot)
        scores.append({"vote": name, "depth": depth, **_plain(score)})
        cells = (score.pass_at[k].brief() for k in ks)
        lines.append(f"{name:<34}" + "".join(f"{cell:>20}" for cell in cells))
        if run is result.runs[0] and rule == "best_q":
            arc_vote.write_submission(directory / "submission.json", ballot)
    lines += [
        "",
        f"{len(rows.challenges)} tasks, {score.num_inputs} test inputs with known outputs, "
        f"{score.num_unknown} without; {score.num_without_candidates} of the former have no row in "
        "this sample and count as wrong; 95 % intervals over tasks",
        "",
        "right before any vote, per augmented test input, %",
        "",
    ]
    lines.append(f"{'':<34}" + "".join(f"{x:>20}" for x in ("mean rollout", "best-Q", "pass")))
    for name, run, depth, _ in _votes(result, rules=("best_q",)):
        answers, q, finite = kept_answers(result, run, depth)
        found = arc_vote.row_accuracy(rows, answers, q, finite=finite)
        scores.append({"rows": name, "depth": depth, **_plain(found)})
        cells = (x.brief() for x in found[:3])
        lines.append(f"{name:<34}" + "".join(f"{cell:>20}" for cell in cells))
    write_text(
        directory / "arc_scores.json", json.dumps(signed({"scores": scores}), indent=1) + "\n"
    )
    return "\n".join(lines) + "\n"


def _blind(rows: arc.ArcSet, result: Result, directory: epath.Path) -> str:
    """The submission for a set none of whose outputs is known."""
    run, depth = result.runs[0], result.config.depth
    answers, q, finite = kept_answers(result, run, depth)
    ballot = arc_vote.vote(rows, answers, q, finite=finite)
    arc_vote.write_submission(directory / "submission.json", ballot)
    inputs = [candidates for of_task in ballot.candidates for candidates in of_task]
    return (
        f"submission.json has two attempts for each of {len(inputs)} test inputs of "
        f"{len(ballot.challenges)} tasks, by best-Q@{result.config.rollouts} at sigma "
        f"{run.sigma:g}; {inputs.count(())} have no row in this sample\n"
    )


def _rows(config: SweepConfig) -> arc.ArcSet:
    if config.data is None:
        raise DataError(
            "arc-agi-2 needs --data, the folder of ARC-AGI that was trained on; got none"
        )
    return arc.read_set(config.data)


def _solved_rows(result: Result) -> arc.ArcSet:
    """The rows of a sweep, with the challenges that they belong to."""
    rows = _rows(result.config).take(slice(len(result.deterministic.measured.finite)))
    present, challenge_of = np.unique(rows.challenge_of, return_inverse=True)
    return dataclasses.replace(
        rows,
        challenges=tuple(rows.challenges[i] for i in present),
        challenge_of=challenge_of.astype(np.int32),
    )


def _votes(
    result: Result, rules: tuple[str, ...] = arc_vote.RULES
) -> Iterator[tuple[str, Run, int, str]]:
    """Name, run, depth and rule of every vote."""
    for depth in sorted({result.config.depth, result.config.baseline_depth}):
        yield f"TRM, D={depth}", result.deterministic, depth, "best_q"
    names = {"best_q": "best-Q", "all": "all vote", "q_weighted": "all vote, by Q"}
    for run in result.runs:
        for rule in rules:
            seed = f", seed {run.seed}" if len(result.config.seeds) > 1 else ""
            name = f"sigma {run.sigma:g}{seed}, {names[rule]}@{result.config.rollouts}"
            yield name, run, result.config.depth, rule


def _plain(found: arc_vote.Score | arc_vote.RowAccuracy) -> dict[str, object]:
    def plain(value: object) -> object:
        if isinstance(value, Interval):
            return value._asdict()
        if isinstance(value, dict):
            return {f"pass@{k}": plain(x) for k, x in value.items()}
        return value

    return {name: plain(value) for name, value in found._asdict().items()}
