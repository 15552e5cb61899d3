"""ARC-AGI-1 with ConceptARC, attention with rotary positions.

    python experiments/train.py arc_agi_1 --data DATA --model.num-puzzle-identifiers N --steps STEPS

DATA is the folder that upstream's `dataset/build_arc_dataset.py` writes (N is in its
`dataset.json`; STEPS is 100,000 epochs x total_groups x mean_puzzle_examples / 768, also from that
file). Upstream's own recipe at full size (README and `config/`, commit e7b6871): four H100, about 3
days, 44.6 % pass@2 in the TRM paper. We had no accelerator to train it: only three steps, in
batches of 4, were run at this size, on a CPU. `micro_batch` is for devices with 16 GiB or more; the
batch must be a multiple of devices x micro_batch.
"""

from ptrm_jax.training.presets import ARC, upstream

CONFIG = upstream(
    data="data/arc1concept-aug-1000",
    variant="attention",
    seq_len=900,
    vocab_size=12,
    L_cycles=4,
    **ARC,
)
