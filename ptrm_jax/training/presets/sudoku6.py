"""6x6 Sudoku, minimal puzzles, 156 thousand parameters: the smallest model that shows every effect.

    python experiments/train.py sudoku6

Two cores of an AMD EPYC: under 5 minutes. Deterministic, D = 16, the first 256 bundled puzzles:
46 % after 400 steps, 99.6 % after 800, 100 % after 1,200 and at the end. The result is bundled.
"""

from ptrm_jax.training.presets import small

CONFIG = small(
    data=("generate:sudoku6:40000",),
    evaluation="sudoku6",
    task="sudoku",
    variant="mlp_t",
    seq_len=36,
    vocab_size=8,
    hidden_size=64,
    steps=1600,
    learning_rate=2e-3,
    micro_batch=8,
    eval_every=400,
    eval_puzzles=256,
)
