"""Six types of pencil puzzles, 4x4 to 6x6, by `mlp_t`.

    python experiments/pencil_data.py DIR --rounds 40
    python experiments/train.py pencil6 --data DIR/train

PTRM's paper uses attention for Pencil Puzzle Bench. Here attention with rotary positions (h 96,
cycles 1 x 1) stayed at 86 % of the cells of training states for 7,000 steps of 32 rows, also when
it went on with three L cycles; with learned positions it began more slowly. `mlp_t` goes on
learning, but is not finished: after these 9,000 steps, 72 minutes on one busy core of an AMD EPYC,
TRM at D = 16 solves 15.6 % [8.3, 22.9] of the first 96 bundled puzzles, and best-Q@4 the same. The
result is not bundled; a longer run is needed.
"""

from ptrm_jax.tasks.ppbench import of_side
from ptrm_jax.training.presets import small

CONFIG = small(
    data=("pencil6/train",),
    evaluation="pencil6",
    task="ppbench",
    variant="mlp_t",
    seq_len=36,
    vocab_size=of_side(6).size,
    hidden_size=80,
    H_cycles=1,
    batch_size=64,
    steps=9000,
    learning_rate=2e-3,
    min_learning_rate_ratio=0.05,
    halt_max_steps=12,
    micro_batch=8,
    eval_every=1500,
    eval_puzzles=96,
    eval_rollouts=4,
)
