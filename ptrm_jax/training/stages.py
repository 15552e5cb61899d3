"""Curricula: runs that precede a preset's own, each of which starts from the weights before it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ptrm_jax.training.config import TrainConfig

FOLDER = "stages"
"""Folder of the earlier runs, in that of the last one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """An earlier run of a curriculum: what it has instead of the last run's settings.

    After the warm-up its learning rate is constant.
    """

    steps: int
    """Optimiser steps."""
    learning_rate: float
    """Learning rate after the warm-up."""
    halt_max_steps: int
    """Supervision steps after which a row always takes a new puzzle."""
    L_cycles: int
    """Updates of z in a recursion: a short recursion learns faster from random weights."""


def plan(
    config: TrainConfig, stages: Sequence[Stage], directory: Path
) -> list[tuple[TrainConfig, Path]]:
    """Settings and folder of each run of a curriculum, in order.

    The last run has these settings and this folder; the earlier ones go to `directory/stages/1`
    and so on, with the seeds after `config.seed`, so that no two see the same order. There are no
    earlier runs if `config.start_from` names a checkpoint.

    Raises:
      InputError: a setting breaks its rule.
    """
    runs: list[tuple[TrainConfig, Path]] = []
    start = config.start_from
    for number, stage in enumerate(stages if start is None else (), 1):
        folder = directory / FOLDER / str(number)
        own = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, L_cycles=stage.L_cycles),
            steps=stage.steps,
            learning_rate=stage.learning_rate,
            min_learning_rate_ratio=1.0,
            halt_max_steps=stage.halt_max_steps,
            seed=(config.seed + number) % 2**32,
            start_from=start,
        )
        runs.append((own, folder))
        start = str(folder / "model")
    return [*runs, (dataclasses.replace(config, start_from=start), directory)]
