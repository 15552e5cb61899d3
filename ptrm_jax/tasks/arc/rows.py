"""Folders of ARC-AGI in upstream's layout: the test rows to solve, and writing a folder.

Every augmented challenge has its own row of the puzzle embedding, so a checkpoint works only with
the identifiers it was trained with. From the same JSON files, in the same order of subsets and with
the same seed and number, `write_folder` writes upstream's identifiers and test rows. Training rows
are upstream's too, except for their offsets if the first subset is a test subset: there they depend
on the hash seed of upstream's Python. With the folder that a checkpoint was trained on, `read_set`
relies on none of this.

Translation. Upstream moves grids on their page in the training split alone: all pairs of each
augmented challenge but one, drawn at random, input and output by the same offset. Test inputs stand
at the upper left, and answers are cropped there, so translation is never inverted.

Source: upstream TRM, commit e7b6871, ``dataset/build_arc_dataset.py``. N is the number of rows.
"""

import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from ptrm_jax.data import read_upstream
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.files import check_writable, write_bytes, write_text, writing
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.tasks.arc.augment import (
    Augmentation,
    draw_augmentations,
    parse_name,
    restore,
    turn,
)
from ptrm_jax.tasks.arc.challenges import (
    BLANK_NAME,
    Challenge,
    Pair,
    as_json,
    read_file,
    read_json,
)
from ptrm_jax.tasks.arc.grids import MAX_SIZE, PAD, SEQ_LEN, VOCAB_SIZE, encode, pack

_CHUNK = 1024  # rows processed at once, to bound the memory


@dataclasses.dataclass(frozen=True, eq=False)
class ArcSet:
    """Test inputs under augmentations, one per row, with the augmentations to undo.

    Attributes:
      puzzles: N rows; the identifiers tell augmented challenges apart.
      labels: [N, 900] int32, the augmented outputs; all PAD, to be ignored, where unknown.
      num_puzzle_identifiers: rows of the puzzle embedding, that of padding included.
      challenges: the T challenges to solve, including any without rows.
      challenge_of: [N] int32, index into `challenges`.
      test_of: [N] int32, which of the challenge's test inputs.
      transform_of: [N] int32, see `Augmentation`.
      colors_of: [N, 10] int32, likewise.
    """

    puzzles: Puzzles
    labels: np.ndarray
    num_puzzle_identifiers: int
    challenges: tuple[Challenge, ...]
    challenge_of: np.ndarray
    test_of: np.ndarray
    transform_of: np.ndarray
    colors_of: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: slice | np.ndarray) -> "ArcSet":
        """Some of the rows; all challenges stay."""
        per_row = ("labels", "challenge_of", "test_of", "transform_of", "colors_of")
        kept = {name: getattr(self, name)[rows] for name in per_row}
        return dataclasses.replace(self, puzzles=self.puzzles.take(rows), **kept)


def read_set(folder: str | os.PathLike[str]) -> ArcSet:
    """The test split of a folder in upstream's layout, with the augmentations to undo.

    The folder holds ``identifiers.json``, ``test_puzzles.json`` and ``test/``. A row's identifier
    names its challenge and augmentation; its test input is the one that equals the row's grid with
    the augmentation undone. Equal test inputs of one challenge are assigned in the order of rows.
    A folder that upstream built without solutions has ``[[0]]`` in their place, which cannot be
    told from a true output.

    Args:
      folder: written by upstream's ``dataset/build_arc_dataset.py`` or by `write_folder`.

    Raises:
      DataError: the folder is incomplete or malformed, or its files disagree.
    """
    dataset = read_upstream(folder)
    root = epath.Path(folder)
    inputs = np.asarray(dataset.puzzles.inputs)
    if inputs.shape[1] != SEQ_LEN or dataset.vocab_size != VOCAB_SIZE:
        raise DataError(
            f"{root} must hold ARC-AGI, {SEQ_LEN} tokens out of {VOCAB_SIZE}; it has "
            f"{inputs.shape[1]} out of {dataset.vocab_size}"
        )
    names_path, challenges_path = root / "identifiers.json", root / "test_puzzles.json"
    for path in (names_path, challenges_path):
        if not path.exists():
            raise DataError(f"{path} is missing; a folder of ARC-AGI has it next to its splits")
    try:
        names = read_json(names_path, list[str])
        challenges = tuple(read_file(challenges_path, "test").values())
    except InputError as error:
        raise DataError(str(error)) from None
    identifiers = np.asarray(dataset.puzzles.puzzle_identifiers)
    place_of = {challenge.name: i for i, challenge in enumerate(challenges)}
    known: dict[int, tuple[int, Augmentation]] = {}
    for identifier in np.unique(identifiers).tolist():
        try:
            if identifier >= len(names):
                raise InputError(f"it has {len(names)} names; a test row has number {identifier}")
            name, augmentation = parse_name(names[identifier])
            if name not in place_of:
                raise InputError(f"task {name} of identifier {identifier} is not a test puzzle")
        except InputError as error:
            raise DataError(f"{names_path}: {error}") from None
        known[identifier] = place_of[name], augmentation
    of_row = [known[identifier] for identifier in identifiers.tolist()]
    challenge_of = np.array([challenge for challenge, _ in of_row], np.int32)
    transform_of = np.array([augmentation.transform for _, augmentation in of_row], np.int32)
    colors_of = np.array([augmentation.colors for _, augmentation in of_row], np.int32)
    packed = []
    for first in range(0, len(of_row), _CHUNK):
        rows = slice(first, first + _CHUNK)
        packed += restore(inputs[rows], transform_of[rows], colors_of[rows])
    return ArcSet(
        dataset.puzzles,
        dataset.labels,
        len(names),
        challenges,
        challenge_of,
        _test_inputs(root, challenges, identifiers, challenge_of, packed),
        transform_of,
        colors_of,
    )


def _test_inputs(
    folder: epath.Path,
    challenges: Sequence[Challenge],
    identifiers: np.ndarray,
    challenge_of: np.ndarray,
    packed: Sequence[bytes],
) -> np.ndarray:
    """Which test input of its challenge each row shows: [N] int32."""
    places: dict[tuple[int, bytes], list[int]] = {}
    for i, challenge in enumerate(challenges):
        for j, pair in enumerate(challenge.test):
            places.setdefault((i, pack(pair.input)), []).append(j)
    earlier: Counter[tuple[int, bytes]] = Counter()  # rows of one identifier with this grid
    test_of = np.empty(len(packed), np.int32)
    for row, key in enumerate(zip(challenge_of.tolist(), packed, strict=True)):
        if key not in places:
            raise DataError(
                f"{folder}: row {row} of the test split must show a test input of task "
                f"{challenges[key[0]].name} in test_puzzles.json; with its augmentation undone it "
                "equals none"
            )
        place = (int(identifiers[row]), key[1])
        test_of[row] = places[key][earlier[place] % len(places[key])]
        earlier[place] += 1
    return test_of


def write_folder(
    folder: str | os.PathLike[str],
    challenges: Sequence[Challenge],
    test_subsets: Sequence[str],
    *,
    num_augmentations: int = 1000,
    seed: int = 42,
) -> None:
    """Writes challenges as a folder in upstream's layout, to train on and for `read_set`.

    The training split has the examples of all challenges, and the test inputs and outputs of those
    outside `test_subsets`; the test split has the test inputs of the others. A test input without a
    known output is left out of training; in the test split its label is PAD throughout, and
    ``test_puzzles.json`` has no output. (Upstream writes ``[[0]]`` for both.) ``dataset.json`` is
    written last in each split.

    Memory: three bytes per token of the training split, about 10 GB for 1000 augmentations of
    ARC-AGI-1 with ConceptARC.

    Args:
      folder: created; must be empty if it exists.
      challenges: all challenges of the training run, ordered by subset; their identifiers are
        numbered throughout.
      test_subsets: subsets whose test inputs are to be solved; if empty, there is no test split.
      num_augmentations: the most augmentations of a challenge beside the challenge itself; see
        `draw_augmentations`.
      seed: of the augmentations and the offsets, 0..2**32 - 1.

    Raises:
      InputError: an argument is out of range, `test_subsets` names a subset that `challenges`
        lack, a challenge occurs twice, or `folder` is not empty.
      StorageError: a file cannot be written.
    """
    _check_arguments(challenges, test_subsets, num_augmentations, seed)
    root = epath.Path(folder)
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f"{root} must be empty, so that data sets do not mix; remove it or pass another"
        )
    check_writable(root)
    rng = np.random.RandomState(seed)
    drawn = draw_augmentations(challenges, num_augmentations, rng)
    names = [
        augmentation.name(challenge.name) for challenge, group in drawn for augmentation in group
    ]
    to_solve = {}
    train: list[_Group] = []
    test: list[_Group] = []
    first = 1
    for challenge, augmentations in drawn:
        known: tuple[Pair, ...] = ()
        if challenge.subset in test_subsets:
            to_solve[challenge.name] = as_json(challenge)
            test.append((challenge.test, augmentations, first))
        else:
            known = tuple(pair for pair in challenge.test if pair.output is not None)
        pairs = known + challenge.train if challenge.test_first else challenge.train + known
        train.append((pairs, augmentations, first))
        first += len(augmentations)

    with writing(root, "it is not complete; remove it and run the command again"):
        root.mkdir(parents=True, exist_ok=True)
        write_text(root / "identifiers.json", json.dumps([BLANK_NAME, *names]))
        write_text(root / "test_puzzles.json", json.dumps(to_solve))
        _write_split(root / "train", train, first, rng)
        if test:
            _write_split(root / "test", test, first, None)


_Group = tuple[Sequence[Pair], Sequence[Augmentation], int]
"""Pairs of a challenge, its augmentations and the identifier of the first of them."""


def _write_split(
    folder: epath.Path,
    groups: Sequence[_Group],
    num_identifiers: int,
    rng: np.random.RandomState | None,
) -> None:
    """Writes a split; with `rng`, all pairs of an augmented challenge but one are moved."""
    num_rows = sum(len(pairs) * len(augmentations) for pairs, augmentations, _ in groups)
    inputs, labels = np.zeros((2, num_rows, SEQ_LEN), np.uint8)
    row = 0
    puzzle_sizes, identifiers = [], []
    for pairs, augmentations, first in groups:
        for identifier, augmentation in enumerate(augmentations, first):
            offsets = _offsets(pairs, augmentation, rng)
            for pair, offset in zip(pairs, offsets, strict=True):
                for tokens, grid in zip((inputs, labels), pair, strict=True):
                    if grid is not None:
                        tokens[row] = encode(augmentation.apply(grid), *offset)
                row += 1
            puzzle_sizes.append(len(pairs))
            identifiers.append(identifier)
    group_sizes = [len(augmentations) for _, augmentations, _ in groups]
    folder.mkdir(exist_ok=True)
    arrays: dict[str, np.ndarray] = {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": np.array(identifiers, np.int32),
        "puzzle_indices": np.cumsum([0, *puzzle_sizes], dtype=np.int32),
        "group_indices": np.cumsum([0, *group_sizes], dtype=np.int32),
    }
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_bytes(folder / f"all__{name}.npy", buffer.getvalue())
    metadata = {
        "pad_id": PAD,
        "ignore_label_id": PAD,
        "blank_identifier_id": 0,
        "vocab_size": VOCAB_SIZE,
        "seq_len": SEQ_LEN,
        "num_puzzle_identifiers": num_identifiers,
        "total_groups": len(groups),
        "mean_puzzle_examples": num_rows / len(identifiers),
        "total_puzzles": len(identifiers),
        "sets": ["all"],
    }
    write_text(folder / "dataset.json", json.dumps(metadata))


def _offsets(
    pairs: Sequence[Pair], augmentation: Augmentation, rng: np.random.RandomState | None
) -> Iterator[tuple[int, int]]:
    """Row and column of each pair of an augmented challenge, drawn in upstream's order."""
    if rng is None:
        yield from [(0, 0)] * len(pairs)
        return
    unmoved = rng.randint(0, len(pairs))
    for i, pair in enumerate(pairs):
        if i == unmoved:
            yield 0, 0
            continue
        shapes = [turn(grid, augmentation.transform).shape for grid in pair if grid is not None]
        height, width = np.max(shapes, axis=0)
        row = rng.randint(0, MAX_SIZE - height + 1)
        yield row, rng.randint(0, MAX_SIZE - width + 1)


def _check_arguments(
    challenges: Sequence[Challenge], test_subsets: Sequence[str], num_augmentations: int, seed: int
) -> None:
    subsets = {challenge.subset for challenge in challenges}
    if isinstance(test_subsets, str) or not set(test_subsets) <= subsets:
        raise InputError(
            f"test_subsets must be a list of subsets of challenges, {sorted(subsets)}; got "
            f"{test_subsets!r}"
        )
    repeated = [name for name, n in Counter(c.name for c in challenges).items() if n > 1]
    if repeated or not challenges:
        raise InputError(
            "challenges must be at least one, each with its own name; "
            + (f"{repeated[0]} occurs twice; leave one out" if repeated else "there are none")
        )
    for what, value, limit in (
        ("num_augmentations", num_augmentations, 10**6),
        ("seed", seed, 2**32 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise InputError(f"{what} must be a whole number in 0..{limit}; got {value!r}")
