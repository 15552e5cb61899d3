r"""11x11 mazes, attention with rotary positions, 134 thousand values.

    python experiments/train.py maze11 --model.H-cycles 1 --halt-max-steps 1 --steps 6000 \
        --min-learning-rate-ratio 1 --output A
    python experiments/train.py maze11 --model.H-cycles 1 --start-from A/model --output B
    python experiments/train.py maze11 --start-from B/model --learning-rate 2e-4 --steps 3000

In three runs, because the whole recursion learns nothing from nothing: a network that is applied
twice first learns where a cell's neighbours are, then, in several steps, how far dead ends reach.
With one H cycle a supervision step is half of one with two; the last run brings those together.
`rope_theta` is small: a maze needs offsets of 1 and of 11 told apart, not long distances.

Two cores of an AMD EPYC, of which one was used: RESULT
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
