"""13x13 mazes with loops, attention with rotary positions.

    python experiments/train.py maze13

Two cores of an AMD EPYC: 1.5 steps per second. No result yet: after 840 steps (16 minutes) it
marked no path, and its loss was that of guessing (0.25). A row takes a new puzzle only every 16
steps as long as nothing is solved, so those steps saw 7,000 mazes; it needs many more.
"""

from ptrm_jax.training.presets import small

CONFIG = small(
    # Short paths are learned first; with long ones alone the loss stays where it cannot see them.
    data=(
        "generate:maze13:30000:kind=braided",
        "generate:maze13:30000:kind=braided,min_path=24,seed=1",
    ),
    evaluation="maze13",
    task="maze",
    variant="attention",
    num_heads=4,
    seq_len=169,
    vocab_size=6,
    hidden_size=64,
    steps=2000,
    learning_rate=1e-3,
    micro_batch=4,
    eval_every=400,
)
