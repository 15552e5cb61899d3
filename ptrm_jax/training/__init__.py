"""Training: upstream's deep supervision with adaptive halting.

`config` -> `examples` -> `step` -> `loop`, then `card`; `presets` are named runs, and `fit_q_head`
fits a Q head to a trained model.
"""

from ptrm_jax.training.config import TrainConfig as TrainConfig
