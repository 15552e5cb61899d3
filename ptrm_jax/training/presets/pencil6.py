"""Six types of pencil puzzles, 4x4 to 6x6, attention with rotary positions.

python experiments/pencil_data.py DIR --rounds 40
python experiments/train.py pencil6 --data DIR/train
"""

from ptrm_jax.tasks.ppbench import of_side
from ptrm_jax.training.presets import small

CONFIG = small(
    data=("pencil6/train",),
    evaluation="pencil6",
    task="ppbench",
    variant="attention",
    num_heads=4,
    rope_theta=30.0,
    seq_len=36,
    vocab_size=of_side(6).size,
    hidden_size=96,
    L_cycles=1,
    batch_size=32,
    steps=20_000,
    learning_rate=1e-3,
    halt_max_steps=8,
    micro_batch=8,
    eval_every=1500,
    eval_puzzles=96,
)
