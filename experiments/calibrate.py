"""Chooses when to stop: the cheapest rule that loses little, with a confidence.

    python experiments/ptrm_sweep.py --checkpoint maze11 --num-puzzles 512 --sigmas 0.1
    python experiments/calibrate.py runs/maze11 --loss 0.05
    python experiments/calibrate.py runs/maze11 --loss 0.05 --held-out runs/other-puzzles

Reads a finished sweep of labelled puzzles; nothing is solved again. The rule is chosen on a random
half of the puzzles and reported on the other half, or chosen on all and reported on a second sweep.
`ptrm_jax.metrics.calibration` says what the confidence means. Exit status 1 if no rule passes.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import math
import sys
from typing import Annotated

import tyro

from ptrm_jax import Stop, console, sweep
from ptrm_jax.config import Read
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Rollouts, calibrate, calibration


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Choose a stop rule."""

    sweep: tyro.conf.Positional[str]
    """Folder that `experiments/ptrm_sweep.py` wrote."""
    loss: float
    """Allowed loss of accuracy, a fraction: 0.01 is a point."""
    confidence: float = 0.95
    """Confidence that the loss is not larger, a fraction."""
    reference: Read = "best"
    """What is lost against: best-Q@K with all steps, read at the "last" step or at the "best"."""
    sigma: float | None = None
    """Noise scale of the run, if the sweep has several; its first seed is taken."""
    held_out: str | None = None
    """Folder of a sweep of other puzzles to report on. Default: a half of the first sweep's."""
    patience: int = 1
    """Steps in a row whose Q reaches the threshold."""
    min_depth: int = 1
    """First step at which a rollout may stop."""
    agree: int = 1
    """Rollouts that must stop with the same answer."""
    caps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = ()
    """Most rollout-steps of a puzzle, to be tried beside no cap; each needs more puzzles."""
    depths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = ()
    """Steps at which a rollout is given up, to be tried beside D, with every cap."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return console.run_command(
        lambda: _calibrate(console.parse(Arguments, argv, description=__doc__))
    )


def _calibrate(arguments: Arguments) -> int:
    chosen_on = _rollouts(arguments.sweep, arguments.sigma)
    if arguments.held_out is None:
        rows, others = calibration.halves(len(chosen_on.correct))
        chosen_on, reported_on = chosen_on.part(rows), chosen_on.part(others)
    else:
        reported_on = _rollouts(arguments.held_out, arguments.sigma)
    family = Stop(math.inf, arguments.patience, arguments.min_depth, arguments.agree)
    rule = calibrate(
        chosen_on,
        loss=arguments.loss,
        confidence=arguments.confidence,
        reference=arguments.reference,
        family=family,
        caps=(None, *arguments.caps),
        depths=(None, *arguments.depths),
    )
    output = console.output()
    if rule is None:
        output.print(
            f"no rule is within {100 * arguments.loss:g} points of the reference with confidence "
            f"{arguments.confidence:g} on {len(chosen_on.correct)} puzzles"
        )
        return 1
    score = calibration.score(reported_on, rule, arguments.reference)
    reference = f"best-Q@{reported_on.correct.shape[1]}, read {arguments.reference}"
    steps = score.rollout_steps
    output.print(f"{rule.stop}, rollouts of {rule.depth} steps")
    output.print(
        f"chosen on {len(chosen_on.correct)} puzzles: with confidence {arguments.confidence:g} it "
        f"loses at most {100 * arguments.loss:g} points to {reference}"
    )
    for what, text in {
        "solved": score.accuracy.percent(),
        f"solved by {reference}": score.reference.percent(),
        "difference, points": score.difference.brief("+"),
        "rollout-steps per puzzle": f"{steps.mean:.1f} [{steps.low:.1f}, {steps.high:.1f}], "
        f"{100 * score.share:.1f} % of K x D",
        "stopped, so it is sure": score.coverage.percent(),
        "right of those": score.sure.percent(),
    }.items():
        output.print(f"on other puzzles, {what}: {text}")
    return 0


def _rollouts(folder: str, sigma: float | None) -> Rollouts:
    """The scores of the run that is asked for."""
    result = sweep.read(folder)
    sigmas = result.config.sigmas
    if sigma is None and len(sigmas) > 1:
        raise InputError(f"sigma must be one of {sigmas} of {folder}; got none; pass --sigma")
    runs = result.runs_of(sigmas[0] if sigma is None else sigma)
    if not runs:
        raise InputError(f"sigma must be one of {sigmas} of {folder}; got {sigma}")
    return runs[0].rollouts


if __name__ == "__main__":
    sys.exit(main())
