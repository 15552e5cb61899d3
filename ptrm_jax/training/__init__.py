"""Training: upstream's deep supervision with adaptive halting.

`run.prepare` checks a `TrainConfig` and reads its `examples`; `loop.train` repeats the `step`, with
a `log` and saved `states`; `card` describes the result. `presets` are named runs, which may have
earlier `stages`; `fit_q_head` fits a Q head to a trained model.
"""

from ptrm_jax.training.config import TrainConfig as TrainConfig
