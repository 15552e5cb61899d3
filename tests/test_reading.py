"""Files that are damaged, or made to do harm, end in one error before anything large is made."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptrm_jax import reading
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.reading import open_npz, read_json, read_npy, read_text, read_yaml, shown
from ptrm_jax.tasks import datasets, ppbench, read_dataset


def npy(
    descr: str = "<i4", shape: str = "(2, 3)", data: bytes = bytes(24), version: int = 1
) -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def test_arrays_are_read_as_numpy_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array in (
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">u2").reshape(2, 3)),
        np.zeros((0, 5), bool),
        np.array(3.5, np.float32),
    ):
        np.save(path, array)
        found = read_npy(path)
        assert found.dtype == array.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, array)
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(5), y=np.ones(2))
    with open_npz(tmp_path / "a.npz", "it") as arrays:
        assert arrays.names == ["x", "y"]
        np.testing.assert_array_equal(arrays.read("x", 40), np.arange(5))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy(shape="(2, 4)"), "32 bytes; it has 24"),
        (npy(shape=f"({10**13},)"), "bytes; it has 24"),
        (npy(shape=f"({2**62}, 4, 4)"), "bytes; it has 24"),  # 0 bytes in 64 bits
        (npy(shape="(-2, -3)"), "its header"),
        (npy(shape="(0, -1)", data=b""), "its header"),
        (npy(descr="|O", shape="(3,)"), "Python objects"),
        (npy(descr="<i4,(9,9,9)i8"), "a.npy"),
        (npy(shape="(2, 3"), "a.npy"),
        (npy(shape="'\x00'"), "a.npy"),
        (npy(version=9), "version"),
        (npy(shape="(" * 9000), "a.npy"),
        (npy()[:-1], "it has 23"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "a.npy"),
        (b"", "a.npy"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_refused(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_npy(tmp_path / "a.npy")


def test_a_small_archive_cannot_be_large(tmp_path: Path) -> None:
    """1 MB that unpacks to 1 GB, and one whose directory states less than there is."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy(shape=f"({2**22},)", data=bytes(2**24)))
    with pytest.raises(InputError, match="x must have at most 1,000 bytes"):
        with open_npz(archive, "it") as arrays:
            arrays.read("x", 1000)
    for content in (b"", b"PK\x05\x06" + bytes(18), archive.getvalue()[:-9]):
        with pytest.raises(InputError):
            with open_npz(io.BytesIO(content), "it") as arrays:
                arrays.read("x", 2**30)


JSON = {
    "[" * 100_000: "nested too deeply",
    '{"a":' * 100_000: "nested too deeply",
    "[" * 65 + "]" * 65: "nested too deeply",
    "{": "is not JSON",
    "9" * 5000: "is not JSON",
    "": "is not JSON",
}


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_json_that_is_deep_or_broken(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=JSON[text]):
        read_json(tmp_path / "x.json")


def test_text_is_read_with_and_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(tmp_path / "x.json") == {"a": [1]}
    with pytest.raises(InputError, match="must have at most 3 bytes"):
        read_text(tmp_path / "x.json", 3)
    (tmp_path / "x.json").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_text(tmp_path / "x.json")


def bomb(levels: int, merge: bool = False) -> str:
    """YAML in which every level holds the one before nine times."""
    lines = ["x0: &x0 {a: 1}"]
    for level in range(1, levels):
        nine = ", ".join([f"*x{level - 1}"] * 9)
        lines.append(f"x{level}: &x{level} " + (f"{{<<: [{nine}]}}" if merge else f"[{nine}]"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12),
        bomb(12, merge=True),
        "&a [*a]",
        "[" * 50_000,
        "- " * 50_000,
        "a: b: c",
        "x: 2001-99-99",
    ]
    + ["!!python/object/apply:os.system [true]", "a: \x07", "k: v\n" * 9000],
    ids=range(10),
)
def test_yaml_that_grows_when_it_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")


def test_yaml_with_aliases_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


def test_shown_is_short() -> None:
    cyclic: dict[str, Any] = {}
    cyclic["me"] = [cyclic] * 10**5
    shared: list[Any] = []
    for _ in range(40):
        shared = [shared] * 9
    for value in (cyclic, shared, "x" * 10**6, 10**4000, {n: n for n in range(10**5)}):
        assert len(shown(value)) < 600
    assert shown("a'b") == repr("a'b")


@pytest.fixture(params=["pipe", "device", "folder", "loop", "link to a pipe"])
def irregular(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What blocks or never ends if it is opened as a file."""
    path = tmp_path / "x.csv"
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case _:
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to(tmp_path / "pipe")
    return path


def test_only_regular_files_are_opened(irregular: Path) -> None:
    readers: tuple[Callable[[Path], object], ...] = (
        *(read_text, read_json, read_yaml, read_npy, ppbench.read_jsonl),
        lambda path: open_npz(path, "x").__enter__(),
    )
    for read in readers:
        with pytest.raises(InputError, match="must be a regular file"):
            read(irregular)
    if irregular.exists() and not irregular.is_dir():
        with pytest.raises(DataError, match="must be a regular file"):
            read_dataset(irregular)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "..\\x", ""])
def test_names_on_the_hub_stay_in_the_snapshot(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="must not contain"):
        reading.check_inside(path)
    if path:
        with pytest.raises(DataError, match="must not contain"):
            datasets._from_hub(f"hf://datasets/owner/name/{path}")
    reading.check_inside("a/b..c/d.csv")


@pytest.mark.parametrize(
    "url",
    [
        "https://puzz.link/p?nurikabe/20000/20000/z",
        f"https://puzz.link/p?heyawake/{'9' * 5000}/9/0",
        "https://puzz.link/p?" + "?a" * 50_000,
        "?" * 100_000,
        "?" + "a" * 10**6 + "/1/1/",
        "?sudoku/9/9/" + "/" * 100_000,
    ],
    ids=range(6),
)
def test_urls_that_would_take_long(url: str) -> None:
    with pytest.raises(InputError) as error:
        ppbench.from_url(url)
    assert len(str(error.value)) < 1000


def test_a_line_may_not_be_of_any_length(tmp_path: Path) -> None:
    """A terabyte of zeros that takes no room."""
    for name in ("x.csv", "x.jsonl"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(DataError, match="a line must have at most"):
            read_dataset(tmp_path / name)


def test_lines_nested_deeply_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    deep = "[" * 10**5
    for line in (deep, json.dumps({"pid": "sudoku"})[:-1] + f', "x": {deep}'):
        path.write_text(line)
        with pytest.raises(InputError, match=r"x.jsonl:1: "):
            ppbench.read_jsonl(path)
        with pytest.raises(DataError):
            read_dataset(path)
