"""Mazes: text, labels, rules, generator, symmetries and files."""

import hashlib
import itertools
from collections import deque

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import maze
from ptrm_jax.tasks.maze import FREE, GOAL, PAD, PATH, START, VOCAB_SIZE, WALL

KINDS = ("perfect", "braided")
DRAWN = "#####\n#S  #\n### #\n#G  #\n#####"
SOLVED = "#####\n#Soo#\n###o#\n#Goo#\n#####"
# The only shortest paths are these two.
RING = "  S/ # /G  "
FIRST, SECOND = "ooS/o# /G  ", "  S/ #o/Goo"


def grid(text: str) -> np.ndarray:
    return maze.encode(text.replace("/", "\n"))


def open_mazes(height: int, width: int, count: int, seed: int) -> np.ndarray:
    """Mazes of independent walls in which S reaches G, most with many shortest paths: [count, S]"""
    rng = np.random.default_rng(seed)
    mazes = []
    while len(mazes) < count:
        tokens = np.where(rng.random(height * width) < rng.uniform(0, 0.45), WALL, FREE)
        start, goal = rng.choice(height * width, 2, replace=False)
        tokens[start], tokens[goal] = START, GOAL
        if searched(tokens, width) is not None:
            mazes.append(tokens)
    return np.stack(mazes)


def neighbours(cell: int, height: int, width: int) -> list[int]:
    """Down, left, right, up."""
    row, column = divmod(cell, width)
    around = [(row + 1, column), (row, column - 1), (row, column + 1), (row - 1, column)]
    return [r * width + c for r, c in around if 0 <= r < height and 0 <= c < width]


def searched(tokens: np.ndarray, width: int) -> np.ndarray | None:
    """The label by a queue, as upstream's search is described; None where there is no path."""
    (start,), (goal,) = np.flatnonzero(tokens == START), np.flatnonzero(tokens == GOAL)
    parents = {start: start}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for other in neighbours(cell, len(tokens) // width, width):
            if tokens[other] != WALL and other not in parents:
                parents[other] = cell
                queue.append(other)
    if goal not in parents:
        return None
    labels, cell = tokens.copy(), parents[goal]
    while cell != start:
        labels[cell], cell = PATH, parents[cell]
    return labels


def graph(tokens: np.ndarray, width: int) -> csr_array:
    """Adjacency of the cells that are no wall."""
    pairs = [
        (cell, other)
        for cell in np.flatnonzero(tokens != WALL).tolist()
        for other in neighbours(cell, len(tokens) // width, width)
        if tokens[other] != WALL
    ]
    rows, columns = np.array(pairs).T
    return csr_array((np.ones(len(rows)), (rows, columns)), (len(tokens), len(tokens)))


def shortest_path_cells(tokens: np.ndarray, width: int) -> np.ndarray:
    """Distances from S of all cells on shortest paths, sorted."""
    ends = [int(np.flatnonzero(tokens == end)[0]) for end in (START, GOAL)]
    from_start, from_goal = dijkstra(graph(tokens, width), unweighted=True, indices=ends)
    return np.sort(from_start[from_start + from_goal == from_start[ends[1]]])


# Text


def test_tokens_are_upstreams():
    np.testing.assert_array_equal(maze.encode("# SGo"), [1, 2, 3, 4, 5])
    assert maze.encode("# SGo").dtype == np.int32
    assert (PAD, WALL, FREE, START, GOAL, PATH, VOCAB_SIZE) == (0, 1, 2, 3, 4, 5, 6)
    assert maze.decode([1, 2, 3, 4, 5, 0, 6, -1]) == "# SGo???"


def test_spaces_at_the_ends_are_cells():
    for text in ("  S\n # \nG  ", "  S # G  ", "  S\n # \nG  \n"):
        assert maze.decode(maze.encode(text)) == "  S # G  "


@given(st.integers(1, 9), st.integers(1, 9), st.randoms())
def test_encode_inverts_decode_and_draw(height, width, rng):
    tokens = [rng.randrange(WALL, VOCAB_SIZE) for _ in range(height * width)]
    for text in (maze.decode(tokens), maze.draw(tokens, width=width)):
        assert maze.encode(text).tolist() == tokens


def test_draw_marks_what_an_answer_may_not_change():
    clues = maze.encode(DRAWN)
    assert maze.draw(clues) == DRAWN
    answer = maze.encode(SOLVED)
    assert maze.draw(answer, clues=clues) == SOLVED
    answer[[0, 1, 6, 8]] = PATH, PAD, FREE, WALL
    assert maze.draw(answer, clues=clues).splitlines()[:2] == ["!!###", "#!o!#"]
    assert maze.draw([3, 2, 4, 1], width=4) == "S G#"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: maze.encode(""), "at least one cell"),
        (lambda: maze.encode("S \n G\n#"), r"lengths \[1, 2\]; keep the spaces"),
        (lambda: maze.encode("S#\nxG"), "'x' at line 2, column 1"),
        (lambda: maze.decode([[1]]), r"tokens .* shape \(1, 1\)"),
        (lambda: maze.decode([1.0]), "float64"),
        (lambda: maze.draw([1] * 6), "6 cells and width is None"),
        (lambda: maze.draw([1] * 6, width=4), "6 cells and width is 4"),
        (lambda: maze.draw([1] * 6, width=0), "6 cells and width is 0"),
        (lambda: maze.draw(np.zeros(0, int)), "0 cells"),
        (lambda: maze.draw([1] * 4, clues=[1] * 9), "clues has 9 cells and tokens 4"),
    ],
)
def test_what_is_no_text_or_board_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


# Labels


@pytest.mark.parametrize(
    ("text", "labelled"),
    [
        ("S  /   /  G", "S  /o  /ooG"),
        ("G  /   /  S", "G  /o  /ooS"),
        ("  S/   /G  ", "  S/  o/Goo"),
        ("  G/   /S  ", "  G/  o/Soo"),
        (RING, SECOND),
        ("SG", "SG"),
        ("S  #/#  G", "So #/#ooG"),
    ],
)
def test_ties_are_broken_down_left_right_up(text, labelled):
    """Followed by hand: of two equally near cells, the one discovered first goes on first."""
    width = len(text.split("/")[0])
    np.testing.assert_array_equal(maze.label(grid(text), width=width), grid(labelled))


@pytest.mark.parametrize(("height", "width"), [(9, 9), (4, 13), (12, 3)])
def test_labels_are_those_of_a_queue(height, width):
    inputs = open_mazes(height, width, 120, seed=0)
    labels = maze.label(inputs, width=width)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [searched(tokens, width) for tokens in inputs])
    batched = maze.label(inputs.reshape(2, 60, -1).astype(np.uint8), width=width)
    np.testing.assert_array_equal(batched, labels.reshape(2, 60, -1))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (maze.encode(SOLVED), r"5 in r2c3 of maze 0"),
        ([[3, 4, 2, 2], [3, 4, 2, 0]], r"0 in r2c2 of maze 1"),
        ([[3, 4, 2, 2], [3, 2, 2, 2]], "maze 1 has 0 G"),
        ([3, 4, 3, 2], "maze 0 has 2 S"),
        ([[3, 4, 2, 2], [3, 1, 1, 4]], "none in maze 1"),
        ([3, 4, 2], "3 cells and width is None"),
        (3, "at least one axis"),
        ([3.0, 4.0, 2.0, 2.0], "float64"),
    ],
)
def test_what_is_no_maze_is_not_labelled(inputs, says):
    with pytest.raises(InputError, match=says):
        maze.label(inputs)


# Rules


def test_any_shortest_path_will_do():
    answers = np.stack([grid(FIRST), grid(SECOND), grid(RING)])
    np.testing.assert_array_equal(maze.satisfies_rules(answers, grid(RING)), [True, True, False])


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("S  o/oo o/ ooG", False),  # apart
        ("S   /ooo /  oG", True),
        ("Soo /  o /  oG", True),
        ("Sooo/   o/   G", True),
        ("Sooo/o  o/   G", False),  # one more
        ("Soo / ooo/   G", False),  # longer
        ("So  / oo /  oG", True),
        ("So  / o  /  oG", False),  # a gap
        ("So  /  oo/   G", False),  # touching at a corner only
        ("o   /oo  / ooG", False),  # S gone
        ("S   /o   /oooo", False),  # G gone
        ("S   /o   /ooSG", False),
        ("S   /o   /o#oG", False),
    ],
)
def test_paths_drawn_by_hand(answer, right):
    inputs = grid("S   /    /   G")
    assert maze.satisfies_rules(grid(answer), inputs, width=4) == right


def all_answers(tokens: np.ndarray) -> np.ndarray:
    """The maze with every set of its free cells marked."""
    free = np.flatnonzero(tokens == FREE)
    answers = np.tile(tokens, (2 ** len(free), 1))
    answers[:, free] = list(itertools.product([FREE, PATH], repeat=len(free)))
    return answers


@pytest.mark.parametrize(("height", "width", "seed"), [(3, 4, 0), (3, 3, 1), (2, 5, 2)])
def test_right_answers_are_exactly_the_shortest_paths(height, width, seed):
    """Every set of free cells of small mazes, against all ways of walking."""
    for inputs in open_mazes(height, width, 12, seed):
        (start,), (goal,) = np.flatnonzero(inputs == START), np.flatnonzero(inputs == GOAL)
        walks = [[start]]
        while not any(walk[-1] == goal for walk in walks):
            walks = [
                [*walk, cell]
                for walk in walks
                for cell in neighbours(walk[-1], height, width)
                if inputs[cell] != WALL and cell not in walk
            ]
        right = {frozenset(walk) - {start, goal} for walk in walks if walk[-1] == goal}
        answers = all_answers(inputs)
        expected = [
            frozenset(np.flatnonzero(answer == PATH).tolist()) in right for answer in answers
        ]
        np.testing.assert_array_equal(maze.satisfies_rules(answers, inputs, width=width), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_change_of_one_cell_leaves_a_unique_answer_right(kind):
    inputs, labels = maze.generate(7, 9, 6, seed=1, kind=kind, min_path=4)
    assert maze.satisfies_rules(labels, inputs, width=9).all()
    for cell, token in itertools.product(range(63), range(-1, 8)):
        answers = labels.copy()
        answers[:, cell] = token
        expected = labels[:, cell] == token
        satisfied = maze.satisfies_rules(answers, inputs, width=9)
        np.testing.assert_array_equal(satisfied, expected)


def test_rules_broadcast_over_rollouts(monkeypatch):
    monkeypatch.setattr(maze, "_CHUNK", 7)
    inputs = open_mazes(6, 6, 10, seed=3)
    labels = maze.label(inputs)
    answers = np.stack([labels, inputs, np.full_like(labels, 99), labels[::-1]], axis=1)
    satisfied = maze.satisfies_rules(answers.astype(np.int64), inputs[:, None].astype(np.uint8))
    assert satisfied.shape == (10, 4) and satisfied.dtype == bool
    assert satisfied[:, 0].all() and not satisfied[:, 2:].any()
    apart = (labels == PATH).any(-1)  # else the maze is its own answer
    np.testing.assert_array_equal(satisfied[:, 1], ~apart)
    single = maze.satisfies_rules(labels[0], inputs[0])
    assert single.shape == () and single
    assert maze.satisfies_rules(answers[:0], inputs[:0, None]).shape == (0, 4)


@pytest.mark.parametrize("inputs", ["S  /   /   ", "   /   /  G", "S S/   /  G", "S #/###/# G"])
def test_no_answer_is_right_where_there_is_no_maze(inputs):
    tokens = grid(inputs)
    assert not maze.satisfies_rules(all_answers(tokens), tokens).any()


@pytest.mark.parametrize(
    ("answers", "inputs", "width", "says"),
    [
        ((3, 4), (2, 4), None, r"inputs\[:, None\]"),
        ((4,), (2, 4), None, r"inputs\[:, None\]"),
        ((3, 4), (3, 1), None, "cell by cell"),
        ((3, 5), (3, 5), None, "5 cells and width is None"),
        ((3, 6), (3, 6), 4, "6 cells and width is 4"),
    ],
)
def test_rules_refuse_shapes_that_do_not_fit(answers, inputs, width, says):
    with pytest.raises(InputError, match=says):
        maze.satisfies_rules(np.ones(answers, int), np.ones(inputs, int), width=width)


def test_rules_refuse_what_is_not_integer():
    with pytest.raises(InputError, match="answers must be integer"):
        maze.satisfies_rules(np.ones((3, 4)), np.ones((3, 4), int))
    with pytest.raises(InputError, match="inputs must be integer"):
        maze.satisfies_rules(np.ones((3, 4), int), np.ones((3, 4)))


# Generator


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(5, 5), (11, 11), (7, 13)])
def test_generated_mazes_are_what_they_are_called(kind, height, width):
    count = 8 if height == 5 else 40  # there are no more braided mazes of 5x5
    inputs, labels = maze.generate(height, width, count, seed=2, kind=kind)
    assert inputs.dtype == labels.dtype == np.int32
    assert inputs.shape == labels.shape == (count, height * width)
    assert len(np.unique(inputs, axis=0)) == count
    np.testing.assert_array_equal(labels, maze.label(inputs, width=width))
    for tokens in inputs:
        adjacency = graph(tokens, width)
        free = tokens != WALL
        assert connected_components(adjacency[free][:, free])[0] == 1
        loops = adjacency.nnz // 2 - free.sum() + 1
        assert loops == 0 if kind == "perfect" else loops > 0
        # The shortest path is unique: one cell at each distance.
        cells = shortest_path_cells(tokens, width)
        np.testing.assert_array_equal(cells, np.arange(len(cells)))

        room = np.zeros((height, width), bool)
        room[1::2, 1::2] = True
        pillar = np.zeros_like(room)
        pillar[::2, ::2] = pillar[[0, -1]] = pillar[:, [0, -1]] = True
        board = tokens.reshape(height, width)
        assert (board[room] != WALL).all() and (board[pillar] == WALL).all()
        assert not np.isin(board[~room], (START, GOAL)).any()


def test_braiding_opens_dead_ends():
    dead_ends = {}
    for kind in KINDS:
        inputs, _ = maze.generate(15, 15, 30, seed=0, kind=kind)
        dead_ends[kind] = sum((graph(tokens, 15).sum(0) == 1).sum() for tokens in inputs)
    assert dead_ends["braided"] < 0.6 * dead_ends["perfect"]


def test_all_5x5_mazes_are_generated(monkeypatch):
    """4 spanning trees of 4 rooms, 12 choices of S and G; braided, one ring and 8 neighbours."""
    for kind, count in (("perfect", 48), ("braided", 8)):
        assert len(np.unique(maze.generate(5, 5, count, seed=0, kind=kind)[0], axis=0)) == count
        monkeypatch.setattr(maze, "_MAX_REDRAWS", 1000)
        with pytest.raises(InputError, match=f"draws of maze {count} gave none"):
            maze.generate(5, 5, count + 1, seed=0, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_min_path_bounds_the_steps(kind):
    for min_path in (1, 13, 20):
        _, labels = maze.generate(11, 11, 60, seed=4, kind=kind, min_path=min_path)
        steps = (labels == PATH).sum(-1) + 1
        assert steps.min() == min_path + min_path % 2
        assert (steps % 2 == 0).all()


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_a_shorter_run_is_a_prefix(split):
    options = {"kind": "braided", "min_path": 4, "split": split}
    longer, shorter = (maze.generate(9, 9, count, 6, **options) for count in (20, 9))
    np.testing.assert_array_equal([part[:9] for part in longer], shorter)


def test_runs_differ_by_seed_size_and_kind():
    run = maze.generate(9, 9, 20, 0)[0]
    assert not (run == maze.generate(9, 9, 20, 1)[0]).all(-1).any()
    assert not (run == maze.generate(9, 9, 20, 0, kind="braided")[0]).all(-1).any()
    assert [part.shape for part in maze.generate(9, 7, 0, 0)] == [(0, 63), (0, 63)]


PINNED = "7c9ca00648e16400a50dedbaea2ba25efa457105ec5b5ead325d47c1781002ef"


def test_a_pinned_run():
    """Another generator, or another stream of numpy's, would make other data sets."""
    digest = hashlib.sha256()
    for kind, split in itertools.product(KINDS, (None, "train", "test")):
        for array in maze.generate(9, 11, 10, seed=7, kind=kind, min_path=6, split=split):
            digest.update(array.astype("<i4").tobytes())
    assert digest.hexdigest() == PINNED


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((4, 5, 1, 0), {}, "they are 4 and 5"),
        ((5, 6, 1, 0), {}, "they are 5 and 6"),
        ((3, 5, 1, 0), {}, "they are 3 and 5"),
        ((5, 5, -1, 0), {}, "count is -1"),
        ((5, 5, 1, -1), {}, "seed -1"),
        ((5, 5, 1, 0), {"min_path": 0}, "min_path 0"),
        ((5, 5, 1, 0), {"min_path": 7}, "with min_path 7 .* draws of maze 0 gave none"),
        ((5, 5, 1, 0), {"kind": "open"}, "kind is 'open'"),
        ((5, 5, 1, 0), {"split": "dev"}, "split is 'dev'"),
    ],
)
def test_arguments_of_the_generator_are_checked(arguments, options, says, monkeypatch):
    monkeypatch.setattr(maze, "_MAX_REDRAWS", 100)
    with pytest.raises(InputError, match=says):
        maze.generate(*arguments, **options)


# Symmetries and the split


@pytest.mark.parametrize(("height", "width"), [(6, 6), (3, 7)])
def test_symmetric_images_share_their_key(height, width):
    inputs = open_mazes(height, width, 10, seed=5)
    boards = inputs.reshape(-1, height, width)
    images = [boards, boards[:, ::-1], boards[:, :, ::-1], boards[:, ::-1, ::-1]]
    if height == width:
        images += [image.swapaxes(1, 2) for image in images]
    images = [image.reshape(inputs.shape) for image in images]

    least = [min(map(tuple, rows)) for rows in np.stack(images, 1).tolist()]
    keys = maze.puzzle_keys(inputs, width=width)
    assert keys.dtype == np.uint64 and len(set(keys.tolist())) == 10
    for image in images:
        np.testing.assert_array_equal(maze.puzzle_keys(image, image, width=width), keys)
    hashes = [hashlib.blake2b(bytes(image), digest_size=8).digest() for image in least]
    assert keys.tolist() == [int.from_bytes(key, "little") for key in hashes]


@pytest.mark.parametrize(("height", "width"), [(5, 5), (5, 7)])
def test_images_carry_the_label_of_the_rule(height, width):
    """A field without walls has many shortest paths, of which a turn keeps another."""
    field = np.full((2, height * width), maze.FREE)
    field[:, 0], field[:, -1] = maze.START, maze.GOAL
    field[1, 3] = maze.WALL
    inputs, labels = maze.images(field, width=width)
    group = len(maze.dihedral_cells(height, width))
    assert inputs.shape == labels.shape == (2 * group, height * width)
    for row, (maze_, answer) in enumerate(zip(inputs, labels, strict=True)):
        cells = maze.dihedral_cells(height, width)[row % group]
        np.testing.assert_array_equal(maze_, field[row // group][cells])
        np.testing.assert_array_equal(answer, maze.label(maze_, width=width))
    turned = maze.label(field, width=width)[:, maze.dihedral_cells(height, width)]
    assert (turned.reshape(labels.shape) != labels).any(axis=1).sum() >= group


def test_keys_are_refused_for_what_is_no_batch_of_mazes():
    with pytest.raises(InputError, match="2 axes"):
        maze.puzzle_keys(maze.encode(DRAWN))
    with pytest.raises(InputError, match="5 in r2c3"):
        maze.puzzle_keys(maze.encode(SOLVED)[None])
    assert len(maze.puzzle_keys(np.zeros((0, 9), int))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_test_share_no_maze_not_even_turned(kind):
    """There are so few of 7x7 that most classes of images come up again and again."""
    keys = {}
    for split in ("train", "test"):
        runs = [maze.generate(7, 7, 75, seed, kind=kind, split=split)[0] for seed in range(4)]
        keys[split] = set(maze.puzzle_keys(np.concatenate(runs)).tolist())
    assert len(keys["test"]) < 250
    assert not keys["train"] & keys["test"]
    assert {key % 8 for key in keys["test"]} == {0}
    assert {key % 8 for key in keys["train"]} == set(range(1, 8))
    shares = maze.puzzle_keys(maze.generate(11, 11, 400, 3, kind=kind)[0]) % 8 == 0
    assert 0.075 < shares.mean() < 0.175  # 3 sigma


# Files


def test_files_are_read_as_written(tmp_path):
    inputs = open_mazes(4, 6, 5, seed=8)
    labels = maze.label(inputs, width=6)
    path = tmp_path / "m.csv"
    ratings = [1, 2.5, -1, 0, 3]
    maze.file_format(6).write(path, inputs, labels, list("abcde"), ratings)
    for read, written in zip(
        maze.file_format(6).read(path), (inputs, labels, ratings, list("abcde")), strict=True
    ):
        np.testing.assert_array_equal(read, written)
    assert path.read_text().splitlines()[1] == (
        f"a,{maze.decode(inputs[0])},{maze.decode(labels[0])},1"
    )
    maze.write_csv(path, [grid(RING)] * 2, [grid(FIRST), grid(SECOND)])
    assert path.read_text() == (
        "source,question,answer,rating\n,  S # G  ,ooSo# G  ,-1\n,  S # G  ,  S #oGoo,-1\n"
    )
    assert maze.read_csv(path)[0].dtype == maze.read_csv(path)[1].dtype == np.int32


HEADER = "source,question,answer,rating\n"
GOOD = "s,  S # G  ,ooSo# G  ,-1\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (HEADER + GOOD.replace("# G", "#.G"), 2, "question: .*'.' at line 1, column 6"),
        (HEADER + GOOD.replace("  S #", "S #"), 2, "question: .* 7 cells"),
        (HEADER + GOOD.replace("  S #", "    #"), 2, "question: .* maze 0 has 0 S"),
        (HEADER + GOOD.replace("oSo", "oGo"), 2, "answer: .* maze 0 has 0 S"),
        (HEADER + GOOD.replace(",  S", ", oS"), 2, "a question must have no 'o'"),
        (HEADER + GOOD + "s,S  G,S oG,-1\n", 3, "here 9 cells; question has 4"),
        (HEADER + GOOD + GOOD.replace("oSo#", "oSo "), 3, "which marks 3 cells, does not"),
        (HEADER + GOOD + GOOD.replace("oSo#", " So#"), 3, "which marks 2 cells, does not"),
    ],
)
def test_read_csv_names_file_and_line(tmp_path, text, line, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        maze.read_csv(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": [grid(RING)]}, "row 0: .* marks 0 cells"),
        ({"labels": grid(FIRST)}, "one shape"),
        ({"inputs": [grid(FIRST)]}, "5 in r1c1"),
        ({"inputs": [[3, 2, 4]], "labels": [[3, 5, 4]]}, "3 cells and width is None"),
    ],
)
def test_write_csv_errors_leave_no_file(tmp_path, changes, says):
    path = tmp_path / "m.csv"
    arguments = {"inputs": [grid(RING)], "labels": [grid(FIRST)]} | changes
    with pytest.raises(InputError, match=says):
        maze.write_csv(path, **arguments)
    assert not path.exists()
