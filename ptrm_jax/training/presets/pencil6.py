"""Six types of pencil puzzles, 4x4 to 6x6, by `mlp_t`.

    python experiments/pencil_data.py DIR --rounds 40
    python experiments/train.py pencil6 --data DIR/train

PTRM's paper uses attention for Pencil Puzzle Bench. At this size and on one core, attention did not
get beyond guessing: RESULT_OF_ATTENTION
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
