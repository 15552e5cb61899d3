"""Tasks by name: built in, registered, from installed packages; what a task may leave out."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ptrm_jax import DataError, ModelConfig, read_dataset, tasks
from ptrm_jax.errors import InputError
from ptrm_jax.sweep import SweepConfig
from ptrm_jax.tasks import Labelled, Task, catalog
from ptrm_jax.training import TrainConfig
from ptrm_jax.training.examples import read_examples, read_source

BLANK, BOARD = np.array([[0, 2, 0, 0]]), np.array([[1, 2, 2, 1]])


def latin(answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Whether 2x2 boards are Latin squares of tokens 1 and 2 that keep their clues."""
    right = (answers == inputs) | (inputs == 0)
    for neighbour in ([1, 0, 3, 2], [2, 3, 0, 1]):
        right &= answers == 3 - answers[..., neighbour]
    return right.all(axis=-1)


LATIN = Task(name="latin", satisfies_rules=latin)


@pytest.fixture(autouse=True)
def own_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each test nothing is registered, and no installed package has been looked for."""
    monkeypatch.setattr(catalog, "_TASKS", catalog._registry())


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str, module: str = "") -> None:
    """Puts a distribution with one module, both of the folder's name, on the path."""
    info = folder / f"{folder.name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ptrm_jax.tasks]\n{entry}\n")
    (folder / f"{folder.name}.py").write_text(module)
    monkeypatch.syspath_prepend(folder)


def test_the_tasks_of_this_package() -> None:
    assert tasks.names() == ("maze", "ppbench", "sudoku")
    assert [tasks.load(name).name for name in tasks.names()] == list(tasks.names())
    with pytest.raises(InputError, match="task must be one of maze, ppbench, sudoku; got 'chess'"):
        tasks.load("chess")


def test_a_registered_task_is_found_and_trained_on(tmp_path: Path) -> None:
    def read(path: Any) -> Labelled:
        boards = np.loadtxt(path, np.int32)
        return Labelled(boards[:1], boards[1:], {})

    def generate(size: int, count: int, *, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(BLANK, count, axis=0), np.repeat(BOARD, count, axis=0)

    task = Task(
        name="latin",
        satisfies_rules=latin,
        vocab_size=lambda num_cells: 3,
        reads=lambda path: Path(path).suffix == ".latin",
        read=read,
        is_text=lambda text: set(text) <= set("012 "),
        named={"pair": lambda: Labelled(BLANK, BOARD, {})},
        generate=generate,
    )
    tasks.register(task)
    assert tasks.load("latin") is task and tasks.names()[-1] == "latin"
    assert tasks.of_text("0 2 0 0") is task
    assert SweepConfig(checkpoint="mine", data="mine", task="latin").task == "latin"
    file = tmp_path / "one.latin"
    file.write_text("0 2 0 0\n1 2 2 1\n")
    for source in ("pair", str(file), "generate:latin2:1"):
        dataset = read_source(source, seed=0)
        assert (dataset.task, dataset.vocab_size) == ("latin", 3)
        assert (dataset.puzzles.inputs == BLANK).all() and (dataset.labels == BOARD).all()

    ones = dict.fromkeys(("num_layers", "H_cycles", "L_cycles", "mlp_width", "mlp_t_width"), 1)
    sizes = {"vocab_size": 3, "seq_len": 4, "hidden_size": 2, **ones}
    model = ModelConfig(**sizes, variant="mlp_t", forward_dtype="float32")
    config = TrainConfig(model=model, data=("pair", "generate:latin2:1"), task="latin", steps=1)
    assert len(read_examples(config, None)) == 2
    with pytest.raises(DataError, match="nothing is left to train on"):
        read_examples(config, read_dataset("pair"))


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            Task(name="sudoku", satisfies_rules=latin),
            "task 'sudoku' exists already; choose another",
        ),
        (LATIN, "task 'latin' exists already"),
        (latin, "a task must be a Task; got function"),
    ],
)
def test_what_cannot_be_registered(task: Any, says: str) -> None:
    tasks.register(LATIN)
    with pytest.raises(InputError, match=says):
        tasks.register(task)


@pytest.mark.parametrize("name", ["", "none", "9x9", "my task", "Latin"])
def test_names_of_tasks_follow_a_rule(name: str) -> None:
    with pytest.raises(InputError, match=f"lower-case letters.*; got {name!r}"):
        Task(name=name, satisfies_rules=latin)


MODULE = """
from ptrm_jax.tasks import Task
TASK = Task(name="chess", satisfies_rules=lambda answers, inputs: (answers == inputs).all(-1))
"""


def test_an_installed_package_brings_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "chess_games", monkeypatch, "chess = chess_games:TASK", MODULE)
    assert tasks.names() == ("maze", "ppbench", "sudoku", "chess")
    assert tasks.load("chess").satisfies_rules(BOARD, BOARD).all()
    assert tasks.load("chess") is tasks.load("chess")
    with pytest.raises(InputError, match="task 'chess' exists already"):
        tasks.register(Task(name="chess", satisfies_rules=latin))


@pytest.mark.parametrize(
    ("entry", "module", "says"),
    [
        ("maze = PLUGIN:TASK", MODULE, "task 'maze' of package 'PLUGIN' exists already; uninstall"),
        ("chess = PLUGIN:NAME", "NAME = 'chess'", "package 'PLUGIN' must be a Task; .* is a str"),
        ("chess = PLUGIN:TASK", "1 / 0", "cannot be loaded from 'PLUGIN:TASK': ZeroDivisionError"),
        ("chess = PLUGIN:GONE", MODULE, "'PLUGIN:GONE': AttributeError"),
        ("draughts = PLUGIN:TASK", MODULE, "entry point 'draughts' loads task 'chess'"),
    ],
)
def test_a_broken_package_is_named(
    entry: str, module: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path.name  # of this test alone: imported modules stay
    install(tmp_path / plugin, monkeypatch, entry.replace("PLUGIN", plugin), module)
    with pytest.raises(InputError, match=says.replace("PLUGIN", plugin)):
        tasks.load(entry.split()[0])


def test_two_packages_cannot_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for plugin in ("black_chess", "white_chess"):
        install(tmp_path / plugin, monkeypatch, f"chess = {plugin}:TASK", MODULE)
    with pytest.raises(InputError, match=r"task 'chess' of package '.*_chess' exists already"):
        tasks.names()


def test_a_task_needs_only_a_name_and_rules() -> None:
    """Tokens are shown as numbers, puzzles equal only to themselves, nothing is augmented."""
    tokens = LATIN.encode("0 2, 0 10")
    assert tokens.dtype == np.int32 and tokens.tolist() == [0, 2, 0, 10]
    assert LATIN.decode(tokens) == "0 2 0 10" and LATIN.symbols(tokens) == ["0", "2", "0", "10"]
    assert LATIN.draw(tokens) == LATIN.draw(tokens, clues=tokens) == " 0  2\n 0 10"
    assert LATIN.draw([1, 2, 3]) == "1 2 3" and LATIN.draw([]) == ""
    assert LATIN.given(BLANK).tolist() == [[False] * 4]
    assert LATIN.bundled(4) == "" and LATIN.count_solutions is None
    keys = LATIN.puzzle_keys(np.array([[0, 2], [2, 0], [0, 2]], np.uint8), BOARD)
    assert keys.dtype == np.uint64 and keys[0] == keys[2] != keys[1]
    images = LATIN.augment(4)(jax.random.key(0), BLANK[0], BOARD[0])
    assert (images[0] == BLANK[0]).all() and (images[1] == BOARD[0]).all()
    assert not LATIN.reads("any.csv") and not LATIN.is_text("1 2")
    for text in ("", "1 x", "1 -2", "1 12345678901"):
        with pytest.raises(InputError, match="numbers of its tokens"):
            LATIN.encode(text)


def test_what_a_task_lacks_is_named_where_it_is_needed(tmp_path: Path) -> None:
    tasks.register(Task(name="latin", satisfies_rules=latin, reads=lambda path: True))
    with pytest.raises(InputError, match=r"task 'latin' has no `vocab_size`, .*; pass vocab_size"):
        tasks.load("latin").vocab_size(4)
    with pytest.raises(DataError, match="task 'latin' has no `generate`"):
        read_source("generate:latin2:1", seed=0)
    file = tmp_path / "puzzles.any"
    file.write_text("")
    with pytest.raises(DataError, match="task 'latin' has no `read`"):
        read_dataset(file)
