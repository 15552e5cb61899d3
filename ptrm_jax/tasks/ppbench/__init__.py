"""Pencil Puzzle Bench (PPBench, Waugh 2026): the six types that PTRM is measured on.

Sudoku, lightup (akari), nurikabe, heyawake, tapa and shakashaka, in one vocabulary on a grid of up
to 10x10 cells: `puzzle` describes a puzzle, `formats` reads files and URLs, `vocabulary` encodes
puzzles as tokens, `rules` checks answers, `symmetry` turns boards, `generator` counts solutions and
makes small puzzles, `examples` collects them into sets to train and test on, `scores` aggregates
results as the paper does, and `task` combines them.
All of it runs on the host in numpy, except `augment`, which is a JAX function.
"""

from ptrm_jax.tasks.ppbench.formats import (
    from_url as from_url,
    paper_filter as paper_filter,
    read_full as read_full,
    read_golden as read_golden,
    read_jsonl as read_jsonl,
    to_url as to_url,
    write_jsonl as write_jsonl,
)
from ptrm_jax.tasks.ppbench.generator import (
    Deduction as Deduction,
    count_solutions as count_solutions,
    deduce as deduce,
    generate as generate,
)
from ptrm_jax.tasks.ppbench.puzzle import TYPES as TYPES, PencilPuzzle as PencilPuzzle
from ptrm_jax.tasks.ppbench.rules import is_solved as is_solved
from ptrm_jax.tasks.ppbench.scores import (
    REPORTED as REPORTED,
    aggregate as aggregate,
    by_type as by_type,
    dollars_per_puzzle as dollars_per_puzzle,
)
from ptrm_jax.tasks.ppbench.symmetry import turn as turn
from ptrm_jax.tasks.ppbench.task import (
    TASK as TASK,
    augment as augment,
    puzzle_keys as puzzle_keys,
)
from ptrm_jax.tasks.ppbench.vocabulary import (
    PAD as PAD,
    VOCAB_SIZE as VOCAB_SIZE,
    VocabularyError as VocabularyError,
    decode as decode,
    draw as draw,
    encode as encode,
    encode_answer as encode_answer,
    encode_problem as encode_problem,
    of_cells as of_cells,
    of_side as of_side,
    resize as resize,
    satisfies_rules as satisfies_rules,
)
