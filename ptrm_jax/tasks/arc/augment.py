"""Augmentations of challenges: draw them, name them, undo them.

A challenge is turned or mirrored and its colours but black are permuted. `draw_augmentations`
repeats upstream's draws, made with numpy's legacy generator, whose stream numpy guarantees never to
change. All challenges share one generator: editing, removing or adding a challenge changes the
draws of those after it, and so does a missing solution if it makes two augmentations look alike
(here and upstream the grid ``[[0]]`` replaces it when they are compared).

Source: upstream TRM, commit e7b6871, ``dataset/build_arc_dataset.py``, ``dataset/common.py``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.arc.challenges import BLANK_NAME, SEPARATOR, Challenge
from ptrm_jax.tasks.arc.grids import FIRST_COLOR, MAX_SIZE, NUM_COLORS, VOCAB_SIZE, crop_sizes

_NUM_TRANSFORMS = 8
_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
_TRIES = 5  # draws per augmentation wanted, duplicates included


class Augmentation(NamedTuple):
    """A symmetry of the square with a permutation of the colours.

    Attributes:
      transform: 0 as it is, 1 to 3 quarter turns counterclockwise, 4 left and right swapped,
        5 top and bottom swapped, 6 transposed, 7 transposed along the other diagonal.
      colors: ten colours; `colors[c]` is what colour c becomes.
    """

    transform: int
    colors: tuple[int, ...]

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """The grid [h, w], augmented: [h, w] or [w, h] int32."""
        return np.array(self.colors, np.int32)[turn(grid, self.transform)]

    def name(self, challenge: str) -> str:
        """Upstream's name of a challenge so augmented, as in ``identifiers.json``."""
        if self == PLAIN:
            return challenge
        return SEPARATOR.join((challenge, f"t{self.transform}", "".join(map(str, self.colors))))


PLAIN = Augmentation(0, tuple(range(NUM_COLORS)))


def parse_name(name: str) -> tuple[str, Augmentation]:
    """Challenge and augmentation of a name in upstream's ``identifiers.json``.

    Args:
      name: a challenge's id, alone or as ``<id>|||t<transform>|||<ten digits>``.

    Raises:
      InputError: it is neither, or the digits are not a permutation.
    """
    challenge, *rest = name.split(SEPARATOR)
    is_id = challenge not in ("", BLANK_NAME)
    if is_id and not rest:
        return challenge, PLAIN
    if is_id and len(rest) == 2 and rest[0] in [f"t{t}" for t in range(_NUM_TRANSFORMS)]:
        if sorted(rest[1]) == list("0123456789"):
            return challenge, Augmentation(int(rest[0][1:]), tuple(map(int, rest[1])))
    raise InputError(
        "an identifier's name must be <task> or <task>|||t<0 to 7>|||<a permutation of "
        f"0123456789>; got {name[:80]!r}"
    )


def turn(grid: np.ndarray, transform: int) -> np.ndarray:
    """A view of the grid under one of the eight symmetries, numbered as upstream does."""
    if transform in (1, 3, 6, 7):
        grid = grid.T
    if transform in (1, 2, 5, 7):
        grid = grid[::-1]
    if transform in (2, 3, 4, 7):
        grid = grid[:, ::-1]
    return grid


def restore(tokens: np.ndarray, transforms: np.ndarray, colors: np.ndarray) -> list[bytes]:
    """Grids cropped from pages, their augmentations undone, each as `grids.pack` writes it.

    Args:
      tokens: [M, 900] integer, any values.
      transforms: [M] integer, as in `Augmentation`.
      colors: [M, 10] integer, likewise.
    """
    heights, widths = (sizes.tolist() for sizes in crop_sizes(tokens))
    # Tokens other than colours may wrap around here; a crop contains none.
    pages = tokens.astype(np.uint8).reshape(-1, MAX_SIZE, MAX_SIZE)
    tables = np.zeros((len(tokens), 256), np.uint8)
    tables[:, FIRST_COLOR:VOCAB_SIZE] = np.argsort(colors, axis=1)
    packed = []
    for page, height, width, transform, table in zip(
        pages, heights, widths, transforms.tolist(), tables, strict=True
    ):
        grid = turn(page[:height, :width], _INVERSE[transform])
        packed.append(bytes(grid.shape) + grid.tobytes().translate(table.tobytes()))
    return packed


def draw_augmentations(
    challenges: Sequence[Challenge], num_augmentations: int, rng: np.random.RandomState
) -> list[tuple[Challenge, list[Augmentation]]]:
    """Challenges in upstream's order, each with its augmentations, the first of them `PLAIN`.

    Args:
      challenges: of all subsets; those of a subset are shuffled.
      num_augmentations: the most augmentations of a challenge beside `PLAIN`. They differ in
        their effect; there are fewer if five times as many draws do not give enough.
      rng: advanced by the draws.
    """
    subsets: dict[str, list[Challenge]] = {}
    for challenge in challenges:
        subsets.setdefault(challenge.subset, []).append(challenge)
    return [
        (subset[i], _distinct_augmentations(subset[i], num_augmentations, rng))
        for subset in subsets.values()
        for i in rng.permutation(len(subset)).tolist()
    ]


def _distinct_augmentations(
    challenge: Challenge, num_augmentations: int, rng: np.random.RandomState
) -> list[Augmentation]:
    """`PLAIN` and others, no two of which give the same set of pairs."""
    unknown = np.zeros((1, 1), np.int32)
    pairs = [(x, unknown if y is None else y) for x, y in (*challenge.train, *challenge.test)]
    images = []  # of each transform: shapes and cells of each pair
    for t in range(_NUM_TRANSFORMS):
        turned = [[turn(grid, t).astype(np.uint8) for grid in pair] for pair in pairs]
        images.append([(bytes((*x.shape, *y.shape)), x.tobytes() + y.tobytes()) for x, y in turned])

    def look(augmentation: Augmentation) -> tuple[bytes, ...]:
        table = bytes(augmentation.colors) + bytes(256 - NUM_COLORS)
        image = images[augmentation.transform]
        return tuple(sorted(shapes + cells.translate(table) for shapes, cells in image))

    distinct = {look(PLAIN): PLAIN}  # keeps the order of the draws
    for _ in range(_TRIES * num_augmentations):
        transform = int(rng.randint(0, _NUM_TRANSFORMS))
        others = rng.permutation(np.arange(1, NUM_COLORS, dtype=np.uint8))
        augmentation = Augmentation(transform, (0, *others.tolist()))
        distinct.setdefault(look(augmentation), augmentation)
        if len(distinct) > num_augmentations:
            break
    return list(distinct.values())
