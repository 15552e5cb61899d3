"""ARC-AGI."""

from ptrm_jax.tasks.arc.challenges import (
    EOS as EOS,
)
from ptrm_jax.tasks.arc.challenges import (
    FIRST_COLOR as FIRST_COLOR,
)
from ptrm_jax.tasks.arc.challenges import (
    MAX_SIZE as MAX_SIZE,
)
from ptrm_jax.tasks.arc.challenges import (
    NUM_COLORS as NUM_COLORS,
)
from ptrm_jax.tasks.arc.challenges import (
    PAD as PAD,
)
from ptrm_jax.tasks.arc.challenges import (
    PLAIN as PLAIN,
)
from ptrm_jax.tasks.arc.challenges import (
    SEQ_LEN as SEQ_LEN,
)
from ptrm_jax.tasks.arc.challenges import (
    VOCAB_SIZE as VOCAB_SIZE,
)
from ptrm_jax.tasks.arc.challenges import (
    ArcSet as ArcSet,
)
from ptrm_jax.tasks.arc.challenges import (
    Augmentation as Augmentation,
)
from ptrm_jax.tasks.arc.challenges import (
    Pair as Pair,
)
from ptrm_jax.tasks.arc.challenges import (
    Task as Task,
)
from ptrm_jax.tasks.arc.challenges import (
    crop as crop,
)
from ptrm_jax.tasks.arc.challenges import (
    crop_sizes as crop_sizes,
)
from ptrm_jax.tasks.arc.challenges import (
    draw as draw,
)
from ptrm_jax.tasks.arc.challenges import (
    encode as encode,
)
from ptrm_jax.tasks.arc.challenges import (
    make_set as make_set,
)
from ptrm_jax.tasks.arc.challenges import (
    pack as pack,
)
from ptrm_jax.tasks.arc.challenges import (
    parse_name as parse_name,
)
from ptrm_jax.tasks.arc.challenges import (
    read_challenges as read_challenges,
)
from ptrm_jax.tasks.arc.challenges import (
    read_set as read_set,
)
from ptrm_jax.tasks.arc.challenges import (
    read_tasks as read_tasks,
)
from ptrm_jax.tasks.arc.challenges import (
    restore as restore,
)
from ptrm_jax.tasks.arc.challenges import (
    unpack as unpack,
)
from ptrm_jax.tasks.arc.challenges import (
    write_folder as write_folder,
)
