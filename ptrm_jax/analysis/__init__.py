"""The paper's analyses on any checkpoint: a module each, run by `experiments/figures.py`.

Each module has `Settings`, whose defaults show something on the bundled models; `measure`, which
computes arrays and intervals from the sweeps and trajectories of a `Study`; `draw`, which makes the
picture; `find` and `say`, which state the numbers and describe them in sentences; and `make`, which
combines them into an `Exhibit`.
"""

from types import ModuleType

from ptrm_jax.registry import Registry

NAMES = (
    "modes",
    "q_head",
    "basins",
    "width",
    "frontier",
    "choices",
    "sigma",
    "langevin",
    "cost",
    "dynamics",
    "movie",
)
"""All analyses, in the order in which they are shown."""

load = Registry("figure", {name: f"{__name__}.{name}" for name in NAMES}, ModuleType).load
"""The module of an analysis, by its name."""
