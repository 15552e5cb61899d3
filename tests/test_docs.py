"""README, manual, notebook: code runs, links lead somewhere, commands have their flags."""

import functools
import importlib
import io
import json
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import numpy as np
import pytest
import tyro
from conftest import load_experiment
from matplotlib import pyplot

import ptrm_jax
from ptrm_jax import interrupts, mesh, tasks

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "experiments/results/*.md")
    for page in ROOT.glob(pattern)
)
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.ipynb"))
FENCE = re.compile(r"^```(\S*)(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@functools.cache
def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The code of a language on a page, but for files, which have a title."""
    found = FENCE.findall(text(page))
    return [body for kind, title, body in found if kind == language and not title]


def files(page: str) -> dict[str, str]:
    """The files that a page spells out, by name."""
    found = FENCE.findall(text(page))
    return {title.split('"')[1]: body for _, title, body in found if title.startswith(" title=")}


def test_the_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 200


# --- Links ---------------------------------------------------------------------------------------


def heading_anchors(page: Path) -> set[str]:
    """The anchors that a code host gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    prose = FENCE.sub("", text(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in heading_anchors(path), f"{page}: {target}"


# --- Commands ------------------------------------------------------------------------------------


COMMAND = re.compile(r"(?:python (?:experiments/\w+\.py|-m \w+)|experiments/run_tpu\.sh)[^\n`|]*")
"""A command of ours, up to the end of its line, code span or table cell."""


def commands(page: str) -> list[str]:
    """Every command of ours that a page names."""
    prose = text(page).replace("\\\n", " ")
    prose = re.sub(r"`[^`\n]+\n[^`\n]+`", lambda code: code[0].replace("\n", " "), prose)
    found = []
    for line in COMMAND.findall(prose):
        line = line.split("&&")[0]
        # The end of a quoted command that is an argument of another one.
        line = line.rstrip().removesuffix('"') if line.count('"') % 2 else line
        found.append(shlex.join(shlex.split(line, comments=True)))
    return found


@functools.cache
def script(name: str) -> Callable[[list[str]], int]:
    """The main of a command in `experiments/`."""
    return load_experiment(name).main


class Parsed(BaseException):
    """A command line was accepted; nothing of the command itself has run."""


@functools.cache
def refusal(command: str) -> str:
    """Why a command line is refused, or "" if it is not. The command does not run."""
    words = shlex.split(command)
    if words[0] == "experiments/run_tpu.sh":
        words = ["python", "experiments/ptrm_sweep.py", "--distributed", *words[1:]]
    is_module = words[1] == "-m"
    name, argv = (words[2], words[3:]) if is_module else (Path(words[1]).stem, words[2:])
    parse = tyro.cli

    def only_parse(what: Any, *args: Any, **settings: Any) -> None:
        if isinstance(what, FunctionType):  # tyro would call it
            what = functools.wraps(what)(lambda **arguments: None)
        parse(what, *args, **settings)
        raise Parsed

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said), redirect_stdout(said):
        patch.setattr(tyro, "cli", only_parse)
        patch.setattr(mesh, "use_cpu_cores", lambda: None)  # the backend is in use already
        patch.setattr(interrupts, "catch", lambda: None)  # this process is pytest's
        patch.setattr(sys, "argv", [name, *argv])
        try:
            if is_module:
                importlib.import_module(f"{name}.__main__").main(argv)
            elif name == "benchmark":
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
            elif script(name)(argv) == 0:  # train.py without a preset lists them
                return ""
        except Parsed:
            return ""
        except SystemExit as stopped:
            if not stopped.code:
                return ""
    if len(argv) < 2 and "--help" not in argv:  # only named, without what it needs
        return refusal(f"{command} --help")
    return said.getvalue() or "tyro was never called"


@pytest.fixture
def latin(monkeypatch: pytest.MonkeyPatch) -> tasks.Task:
    """The task of docs/own_task.md, registered for one test."""
    scope: dict[str, Any] = {}
    exec(files("docs/own_task.md")["latin_squares.py"], scope)
    monkeypatch.setattr(tasks.catalog, "_TASKS", tasks.catalog._registry())
    tasks.register(scope["TASK"])
    return scope["TASK"]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_parse(page: str, latin: tasks.Task) -> None:
    """Every command that a page names has these flags."""
    assert {command: refusal(command) for command in commands(page) if refusal(command)} == {}


def test_commands_are_found() -> None:
    named = {command.split()[1] for page in PAGES for command in commands(page)}
    assert named >= {f"experiments/{path.name}" for path in (ROOT / "experiments").glob("*.py")}
    assert commands("README.md")[0] == "python experiments/ptrm_sweep.py"
    assert refusal("python experiments/ptrm_sweep.py --rolouts 8")
    assert refusal("python -m ptrm_jax solv x")


# --- Python --------------------------------------------------------------------------------------

SMALLER = {
    ".head(32)": ".head(6)",
    "ROLLOUTS, DEPTH, SIGMA = 8, 4": "ROLLOUTS, DEPTH, SIGMA = 4, 2",
    '"sudoku9"': '"sudoku6"',
    "num_rollouts=16, depth=16": "num_rollouts=2, depth=2",
}
"""What makes an example cheap enough to run; the rest of it runs as it stands."""


EXAMPLES = [
    (page, number)
    for page in PAGES
    for number, example in enumerate(blocks(page, "python"))
    if page != "README.md" and "shard_map" not in example
]


@pytest.mark.parametrize(("page", "number"), EXAMPLES)
def test_examples_run(
    page: str,
    number: int,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they stand, but smaller; where a print carries a comment, that is what it prints."""
    example = blocks(page, "python")[number]
    for large, small in SMALLER.items():
        example = example.replace(large, small)
    said = re.findall(r"^print.*  # (.*)$", example, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, page, "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    assert not said or printed == said


def test_the_task_of_the_manual(
    latin: tasks.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is read, its rules hold for its labels, its puzzle is read and drawn."""
    code = files("docs/own_task.md")
    assert set(code) == {"make_latin.py", "solve.py", "latin_squares.py", "pyproject.toml"}
    monkeypatch.chdir(tmp_path)
    exec(code["make_latin.py"], {})
    data = ptrm_jax.read_dataset("latin")
    assert len(data) == 256 and data.puzzles.inputs.shape[1] == 16 and data.vocab_size == 6
    assert latin.satisfies_rules(data.labels, data.puzzles.inputs).all()
    swapped = data.labels[:, ::-1].copy()
    swapped[:, 0] = swapped[:, 1]
    assert not latin.satisfies_rules(swapped, np.ones_like(swapped)).any()
    (puzzle,) = re.findall(r'solve "(latin:[.\d]+)"', text("docs/own_task.md"))
    assert tasks.of_text(puzzle) is latin
    assert latin.decode(latin.encode(puzzle)) == puzzle.split(":")[1]
    assert latin.draw(latin.encode(puzzle)) in text("docs/own_task.md")
    entry = tomllib.loads(code["pyproject.toml"])["project"]["entry-points"]["ptrm_jax.tasks"]
    assert entry == {latin.name: "latin_squares:TASK"}


def test_the_example_of_the_readme_is_that_of_the_manual() -> None:
    assert blocks("README.md", "python") == blocks("docs/library.md", "python")[:1]


def test_the_transforms_solve(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of transformations, run; and what the manual says of its bits."""
    (example,) = (block for block in blocks("docs/library.md", "python") if "shard_map" in block)
    scope: dict[str, Any] = {}
    exec(example, scope)
    printed = capsys.readouterr().out.splitlines()
    said = [line.split("# ")[1] for line in example.splitlines() if line.startswith("print")]
    assert printed == said and len(said) == 3
    plain = scope["solve"](scope["params"], scope["key"], scope["puzzles"])
    pairs = [(plain, scope["scanned"]), (plain, scope["spread"])]
    for i, key in enumerate(scope["keys"]):
        alone = scope["solve"](scope["params"], key, scope["puzzles"], sigma=1.0)
        pairs.append((alone, jax.tree.map(lambda x, i=i: x[i, 1], scope["grid"])))
    for alone, other in pairs:
        for name in ("answer", "rollout", "rollout_answers"):
            got = np.asarray(getattr(other, name)).reshape(getattr(alone, name).shape)
            np.testing.assert_array_equal(got, getattr(alone, name))
        got = np.asarray(other.rollout_q_logits).reshape(4, 2)
        np.testing.assert_allclose(got, alone.rollout_q_logits, rtol=1e-4, atol=1e-4)


# --- Notebooks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs, on fewer puzzles; at least one draws a picture; none has stored outputs."""
    cells = json.loads(text(name))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    pictures: list[Any] = []
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)  # the backend is in use already
    monkeypatch.setattr(pyplot, "show", lambda: pictures.extend(pyplot.get_fignums()))
    pyplot.switch_backend("agg")
    scope: dict[str, Any] = {"__name__": "notebook"}
    for cell in code:
        source = "".join(cell["source"])
        for large, small in SMALLER.items():
            source = source.replace(large, small)
        exec(compile(source, name, "exec"), scope)
    pyplot.close("all")
    assert pictures
