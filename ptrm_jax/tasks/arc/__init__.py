"""ARC-AGI: grids and their tokens, challenges, augmentations, folders in upstream's layout."""

from ptrm_jax.tasks.arc.augment import (
    PLAIN as PLAIN,
    Augmentation as Augmentation,
    parse_name as parse_name,
    restore as restore,
)
from ptrm_jax.tasks.arc.challenges import (
    Challenge as Challenge,
    Pair as Pair,
    read_challenges as read_challenges,
)
from ptrm_jax.tasks.arc.grids import (
    EOS as EOS,
    FIRST_COLOR as FIRST_COLOR,
    MAX_SIZE as MAX_SIZE,
    NUM_COLORS as NUM_COLORS,
    PAD as PAD,
    SEQ_LEN as SEQ_LEN,
    VOCAB_SIZE as VOCAB_SIZE,
    encode as encode,
    pack as pack,
    unpack as unpack,
)
from ptrm_jax.tasks.arc.rows import (
    ArcSet as ArcSet,
    read_set as read_set,
    write_folder as write_folder,
)
