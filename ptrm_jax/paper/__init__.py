"""The rows of the paper's table as named sweeps: a small file each.

A module's docstring says the command, the hardware, how long it takes there and the paper's
numbers. Its CONFIG has the paper's K, D, sigma and seeds; checkpoint and data are the user's. A
module may have GRID, the widths and depths to report too; `report`, which makes more of a finished
sweep than `ptrm_jax.sweep.report` does; and `check`, which refuses data that it could not use.
"""

import dataclasses
import importlib
from types import ModuleType

from etils import epath

from ptrm_jax.errors import InputError
from ptrm_jax.sweep import Result, Sweep, SweepConfig

NAMES = ("arc-agi-2", "maze-hard", "ppbench", "sudoku-extreme")
"""As commands write them."""


def names() -> tuple[str, ...]:
    """Names of all benchmarks, as commands write them."""
    return NAMES


def load(name: str) -> SweepConfig:
    """The settings of a benchmark.

    Raises:
      ValueError: there is none of this name.
    """
    return _module(name).CONFIG


def with_grid(config: SweepConfig) -> SweepConfig:
    """The grid of a sweep's benchmark, as far as K and D go, unless another is asked for."""
    grid = getattr(_module(config.benchmark), "GRID", None) if config.benchmark else None
    if grid is None or config.grid_rollouts or config.grid_depths:
        return config
    rollouts, depths = (
        tuple(value for value in values if value <= most)
        for values, most in zip(grid, (config.rollouts, config.depth), strict=True)
    )
    return dataclasses.replace(config, grid_rollouts=rollouts, grid_depths=depths)


def describe(name: str) -> str:
    """The docstring of a benchmark.

    Raises:
      ValueError: there is none of this name.
    """
    return _module(name).__doc__ or ""


def check(sweep: Sweep) -> None:
    """Refuses what the benchmark of a prepared sweep could not report on.

    Raises:
      ValueError, DataError: the data are not of this benchmark.
    """
    name = sweep.config.benchmark
    if name is not None and hasattr(_module(name), "check"):
        _module(name).check(sweep)


def report(result: Result, directory: epath.Path) -> str:
    """Writes what the benchmark of a sweep adds to its report; returns text to print, "" for none.

    Args:
      result: of a finished sweep.
      directory: where files go.
    """
    name = result.config.benchmark
    more = getattr(_module(name), "report", None) if name is not None else None
    return more(result, directory) if more is not None else ""


def _module(name: str) -> ModuleType:
    if name not in names():
        raise InputError(f"benchmark must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
