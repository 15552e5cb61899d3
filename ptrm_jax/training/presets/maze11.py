r"""11x11 mazes, attention with rotary positions, 132 thousand parameters.

    python experiments/train.py maze11 --data generate:maze11:30000 --model.H-cycles 1 \
        --halt-max-steps 1 --steps 6000 --min-learning-rate-ratio 1 --output A
    python experiments/train.py maze11 --model.H-cycles 1 --start-from A/model --seed 1 --output B
    python experiments/train.py maze11 --start-from B/snapshots/step_018000 --seed 2 \
        --learning-rate 3e-4 --halt-max-steps 16 --steps 5000

In three runs, because the whole recursion does not learn from random weights: a network that is
applied twice first learns which cells are neighbours, then, over several steps, how far dead ends
reach. With one H cycle a supervision step is half of one with two; the last run trains both.
`rope_theta` is small: a maze needs to distinguish offsets of 1 and 11, not long distances.

Cores of an AMD EPYC: 7 minutes on one, 32 on one beside other work, 5 on two. Deterministic,
D = 16: 71 % of 256 bundled puzzles, and 82 % by best-Q@16 at sigma 0.1. The result is bundled.
"""

from ptrm_jax.training.presets import small

CONFIG = small(
    data=("generate:maze11:60000",),
    evaluation="maze11",
    task="maze",
    variant="attention",
    num_heads=4,
    rope_theta=30.0,
    seq_len=121,
    vocab_size=6,
    hidden_size=64,
    L_cycles=1,
    batch_size=32,
    steps=24_000,
    learning_rate=1e-3,
    min_learning_rate_ratio=0.05,
    halt_max_steps=8,
    micro_batch=4,
    eval_every=3000,
    eval_puzzles=128,
)
