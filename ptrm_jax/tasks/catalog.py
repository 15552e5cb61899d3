"""The tasks by name: those of this package, of installed packages, and registered ones.

An installed package offers a task by an entry point of the group ``ptrm_jax.tasks`` that has the
task's name and loads to its `Task`; a program adds one to its own process by `register`.
"""

import os

from ptrm_jax.errors import InputError
from ptrm_jax.registry import Registry
from ptrm_jax.tasks.task import Task


def _registry() -> Registry[Task]:
    own = {name: f"ptrm_jax.tasks.{name}:TASK" for name in ("maze", "ppbench", "sudoku")}
    return Registry("task", own, Task, group="ptrm_jax.tasks")


_TASKS = _registry()


def names() -> tuple[str, ...]:
    """Names of all tasks."""
    return _TASKS.names()


def load(name: str) -> Task:
    """A task by its name.

    Raises:
      InputError: there is none of this name, or an installed package's is broken.
    """
    task = _TASKS.load(name)
    if task.name != name:
        raise InputError(
            f"an entry point must have the name of its task; entry point {name!r} loads task "
            f"{task.name!r}; rename one of them"
        )
    return task


def register(task: Task) -> None:
    """Makes a task available, by its name, to everything in this process.

    Raises:
      InputError: it is not a `Task`, or its name is taken.
    """
    _TASKS.register(getattr(task, "name", ""), task)


def of_file(path: str | os.PathLike[str]) -> Task | None:
    """The task that a file holds, or None."""
    return next((task for task in _all() if task.reads(path)), None)


def of_name(name: str) -> Task | None:
    """The task that has a set of this name, or None."""
    return next((task for task in _all() if name in task.named), None)


def of_text(text: str) -> Task:
    """The task of a text of puzzles; Sudoku if no other claims it."""
    return next(task for task in _all() if task.is_text(text))


def _all() -> list[Task]:
    """All tasks, Sudoku last: it takes what no other claims, and says what is wrong with it."""
    return [load(name) for name in sorted(names(), key=lambda name: name == "sudoku")]
