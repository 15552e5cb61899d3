"""The paper's benchmarks as named sweeps, a small module each; its claims, and the ledger.

The docstring of a benchmark gives the command, the hardware, the time it takes there and the
paper's numbers. CONFIG has the paper's K, D, sigma and seeds; checkpoint and data are the user's. A
benchmark may have GRID, the widths and depths to report as well; FOR_CHECKPOINTS, settings for
bundled checkpoints by name, with their data; `report`, which adds to the report of a finished
sweep; and `check`, which refuses data that it could not report on.
"""

import dataclasses
from types import ModuleType

from etils import epath

from ptrm_jax.registry import Registry
from ptrm_jax.sweep import Result, Sweep, SweepConfig

NAMES = ("arc-agi-2", "maze-hard", "ppbench", "sudoku-extreme")
"""As commands write them."""

_REGISTRY = Registry(
    "benchmark", {name: f"{__name__}.{name.replace('-', '_')}" for name in NAMES}, ModuleType
)


def load(name: str, checkpoint: str | None = None) -> SweepConfig:
    """The settings of a benchmark.

    Args:
      name: of the benchmark.
      checkpoint: a bundled one for which it may have settings of its own; otherwise the paper's.

    Raises:
      InputError: no benchmark has this name.
    """
    benchmark = _REGISTRY.load(name)
    return getattr(benchmark, "FOR_CHECKPOINTS", {}).get(checkpoint, benchmark.CONFIG)


def with_grid(config: SweepConfig) -> SweepConfig:
    """The settings with the grid of their benchmark, up to K and D, unless they have a grid."""
    grid = getattr(_REGISTRY.load(config.benchmark), "GRID", None) if config.benchmark else None
    if grid is None or config.stop or config.grid_rollouts or config.grid_depths:
        return config
    rollouts, depths = (
        tuple(value for value in values if value <= most)
        for values, most in zip(grid, (config.rollouts, config.depth), strict=True)
    )
    return dataclasses.replace(config, grid_rollouts=rollouts, grid_depths=depths)


def describe(name: str) -> str:
    """The docstring of a benchmark.

    Raises:
      InputError: no benchmark has this name.
    """
    return _REGISTRY.load(name).__doc__ or ""


def check(sweep: Sweep) -> None:
    """Refuses what the benchmark of a prepared sweep could not report on.

    Raises:
      InputError, DataError: the data are not of this benchmark.
    """
    name = sweep.config.benchmark
    if name is not None and hasattr(_REGISTRY.load(name), "check"):
        _REGISTRY.load(name).check(sweep)


def report(result: Result, directory: epath.Path) -> str:
    """Writes what the benchmark of a sweep adds to its report; returns text to print, "" for none.

    Args:
      result: of a finished sweep.
      directory: where files go.
    """
    name = result.config.benchmark
    more = getattr(_REGISTRY.load(name), "report", None) if name is not None else None
    return more(result, directory) if more is not None else ""
