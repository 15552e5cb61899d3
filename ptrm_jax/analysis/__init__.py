"""The paper's analyses, on any checkpoint: a module for each, `experiments/figures.py` runs them.

Each module has `Settings`, whose defaults show something on the bundled models; `measure`, which
computes arrays and intervals from the sweeps and trajectories of a `Study`; `draw`, which makes the
picture; `find` and `say`, which state the numbers and describe them in sentences; and `make`, which
combines them into an `Exhibit`.
"""

import importlib
from types import ModuleType

from ptrm_jax.errors import InputError

NAMES = (
    "modes",
    "q_head",
    "basins",
    "width",
    "sigma",
    "langevin",
    "cost",
    "dynamics",
    "movie",
)
"""All analyses, in the order in which they are shown."""


def load(name: str) -> ModuleType:
    """The module of an analysis.

    Raises:
      InputError: there is none of this name.
    """
    if name not in NAMES:
        raise InputError(f"figure must be one of {', '.join(NAMES)}; got {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
