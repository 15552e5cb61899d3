"""Pencil Puzzle Bench (PPBench, Waugh 2026): the six types that PTRM is measured on.

Sudoku, lightup (akari), nurikabe, heyawake, tapa and shakashaka, in one vocabulary on a grid of
10x10 cells: `records` says what a puzzle is, `formats` reads and writes URLs and files,
`vocabulary` turns puzzles into tokens, `rules` checks answers, `symmetry` makes training examples,
`generator` solves puzzles and makes small ones, `scores` sums up results as the paper does.
Everything runs on the host in numpy.
"""

from ptrm_jax.tasks.ppbench.formats import (
    from_pzprv3,
    from_url,
    paper_filter,
    read_full,
    read_golden,
    read_jsonl,
    to_pzprv3,
    to_url,
)
from ptrm_jax.tasks.ppbench.generator import count_solutions, generate, solve
from ptrm_jax.tasks.ppbench.records import TYPES, Record
from ptrm_jax.tasks.ppbench.rules import is_solved
from ptrm_jax.tasks.ppbench.scores import REPORTED, aggregate, by_type, dollars_per_puzzle, table
from ptrm_jax.tasks.ppbench.symmetry import training_examples, turn
from ptrm_jax.tasks.ppbench.task import TASK, augment, puzzle_keys
from ptrm_jax.tasks.ppbench.vocabulary import (
    PAD,
    VOCAB_SIZE,
    VocabularyError,
    decode,
    draw,
    encode_answer,
    encode_problem,
    satisfies_rules,
    type_of,
)

__all__ = [
    "TASK",
    "augment",
    "puzzle_keys",
    "TYPES",
    "REPORTED",
    "PAD",
    "VOCAB_SIZE",
    "Record",
    "VocabularyError",
    "read_jsonl",
    "read_golden",
    "read_full",
    "paper_filter",
    "from_url",
    "to_url",
    "from_pzprv3",
    "to_pzprv3",
    "encode_problem",
    "encode_answer",
    "decode",
    "draw",
    "type_of",
    "satisfies_rules",
    "is_solved",
    "turn",
    "training_examples",
    "solve",
    "count_solutions",
    "generate",
    "by_type",
    "aggregate",
    "table",
    "dollars_per_puzzle",
]
