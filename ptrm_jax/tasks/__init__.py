"""Kinds of puzzle: read, encode, decode, rules, draw, symmetries, generate.

`Task` describes one; `register` or an entry point adds one. `read_dataset` reads puzzles of all.
"""

from ptrm_jax.tasks.catalog import (
    load as load,
    names as names,
    of_file as of_file,
    of_name as of_name,
    of_text as of_text,
    register as register,
)
from ptrm_jax.tasks.datasets import bundled_sets as bundled_sets, read_dataset as read_dataset
from ptrm_jax.tasks.task import Labelled as Labelled, Look as Look, Task as Task
