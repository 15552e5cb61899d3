"""Kinds of puzzle, a module each: read, encode, decode, rules, draw, symmetries, generate.

Everything outside uses a task through `Task`; to add one is to add a module with a `TASK`.
"""

import functools
import importlib
import os
import pkgutil
from collections.abc import Mapping

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.task import Task as Task


@functools.cache
def all_tasks() -> Mapping[str, Task]:
    """Every task by its name."""
    modules = (
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    )
    found = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {task.name: task for task in sorted(found, key=lambda task: task.name)}


def load(name: str) -> Task:
    """A task by its name.

    Raises:
      ValueError: there is none of this name.
    """
    if name not in all_tasks():
        raise InputError(f"task must be one of {', '.join(all_tasks())}; got {name!r}")
    return all_tasks()[name]


def of_file(path: str | os.PathLike[str]) -> Task | None:
    """The task that a file is of, or None."""
    return next((task for task in _asked() if task.reads(path)), None)


def of_name(name: str) -> Task | None:
    """The task that has a set of this name, or None."""
    return next((task for task in all_tasks().values() if name in task.named), None)


def of_text(text: str) -> Task:
    """The task that a puzzle written in one line is of; what is of no other is a Sudoku."""
    return next(task for task in _asked() if task.is_text(text))


def _asked() -> list[Task]:
    """All tasks, Sudoku last: it takes what no other claims, and says what is wrong with it."""
    return sorted(all_tasks().values(), key=lambda task: task.name == "sudoku")
