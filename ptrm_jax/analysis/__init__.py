"""The paper's analyses, on any checkpoint: a module for each, `experiments/figures.py` runs them.

A module has functions of arrays, which compute and are tested; `Settings`, what the figure is made
of, with defaults that show something on the bundled models; and `make`, which asks a `Study` for
sweeps and trajectories and returns `Exhibit`s: picture, data, what it says in words and numbers.
"""

import importlib
from types import ModuleType

from ptrm_jax.errors import InputError

NAMES = (
    *("modes", "q_head", "basins", "width", "sigma", "langevin", "cost", "dynamics"),
    "movie",
)
"""All analyses, in the order in which they are shown."""


def load(name: str) -> ModuleType:
    """The module of an analysis.

    Raises:
      ValueError: there is none of this name.
    """
    if name not in NAMES:
        raise InputError(f"figure must be one of {', '.join(NAMES)}; got {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
