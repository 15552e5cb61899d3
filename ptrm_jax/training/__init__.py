"""Training: upstream's deep supervision with adaptive halting, as one jitted function per step.

config -> examples -> step -> loop; `presets` names runs. Of the package only `card` imports it.
"""

from ptrm_jax.training.config import TrainConfig as TrainConfig
