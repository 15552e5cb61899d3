"""Journals: what is appended comes back, whatever else happens to the file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptrm_jax.sweep import journal
from ptrm_jax.sweep.journal import Contents, JournalError, Writer

PAYLOADS = [b"", b"one", bytes(range(256)) * 40, journal.MAGIC * 3, b"last"]


def write(folder: Path, payloads: list[bytes], name: str = "a") -> Path:
    with Writer(folder, name) as writer:
        for number, payload in enumerate(payloads):
            writer.append(payload, str(number))
    return folder / f"{name}.journal"


def test_headers_without_records_end_in_an_error(tmp_path: Path) -> None:
    """Each states a megabyte, whose digest is computed in vain."""
    header = journal.MAGIC + (10**6).to_bytes(8, "little") + bytes(32)
    (tmp_path / "x.journal").write_bytes(header * 400 + bytes(2 * 10**6))
    with pytest.raises(JournalError, match="headers without records"):
        journal.read(tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "nothing") == Contents([], [])
    write(tmp_path / "folder", PAYLOADS[:2])
    write(tmp_path / "folder", PAYLOADS[2:])  # opened again
    write(tmp_path / "folder", [b"another's"], "b")
    assert journal.read(tmp_path / "folder") == Contents([*PAYLOADS, b"another's"], [])


def test_any_flipped_byte_costs_its_record_alone(tmp_path: Path) -> None:
    payloads = [b"first", journal.MAGIC, b"third record", b"fourth"]
    path = write(tmp_path, payloads)
    good = path.read_bytes()
    ends = np.cumsum([len(journal.frame(payload)) for payload in payloads])
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bytes(bad))
        hit = int(np.searchsorted(ends, position, side="right"))
        contents = journal.read(tmp_path)
        assert contents.payloads == payloads[:hit] + payloads[hit + 1 :], position
        start = int(ends[hit - 1]) if hit else 0
        assert contents.damaged == [f"{path}, bytes {start} to {ends[hit]}"]


def test_any_cut_costs_the_last_record_alone_and_is_repaired(tmp_path: Path) -> None:
    path = write(tmp_path, [b"first", b"second", b"third"])
    good = path.read_bytes()
    ends = [0, *np.cumsum([len(journal.frame(p)) for p in (b"first", b"second", b"third")])]
    for length in range(len(good)):
        path.write_bytes(good[:length])
        whole = sum(end <= length for end in ends[1:])
        contents = journal.read(tmp_path)
        assert contents.payloads == [b"first", b"second", b"third"][:whole]
        assert len(contents.damaged) == (length not in ends)
        write(tmp_path, [b"again"])
        repaired = journal.read(tmp_path)
        assert repaired == Contents([b"first", b"second", b"third"][:whole] + [b"again"], [])


def test_damage_before_a_good_record_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, [b"first", b"second"])
    bad = bytearray(path.read_bytes())
    bad[3] ^= 1
    path.write_bytes(bytes(bad))
    write(tmp_path, [b"third"])
    contents = journal.read(tmp_path)
    assert contents.payloads == [b"second", b"third"] and len(contents.damaged) == 1


def test_two_writers_of_one_journal_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path, "a") as first:
        first.append(b"mine", "0")
        with pytest.raises(JournalError, match="being written by another process"):
            Writer(tmp_path, "a")
        with Writer(tmp_path, "b") as other:
            other.append(b"theirs", "0")
    assert journal.read(tmp_path).payloads == [b"mine", b"theirs"]


def test_a_kill_leaves_what_append_returned_from(tmp_path: Path) -> None:
    """The process kills itself after its third record, with half of a fourth in the file."""
    program = f"""
import os, signal
from ptrm_jax.sweep import journal
writer = journal.Writer({str(tmp_path)!r}, "a")
for number in range(3):
    writer.append(b"%d" % number, str(number))
writer._file.write(journal.frame(b"x" * 1000)[:500])
writer._file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], env=dict(os.environ))
    assert run.returncode == -signal.SIGKILL
    contents = journal.read(tmp_path)
    assert contents.payloads == [b"0", b"1", b"2"] and len(contents.damaged) == 1
    write(tmp_path, [b"3"])  # the lock went with the process
    assert journal.read(tmp_path) == Contents([b"0", b"1", b"2", b"3"], [])


def test_where_nothing_can_be_appended_a_record_is_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a bucket; whose paths hold "://", which a local one cannot stand in for."""
    monkeypatch.setattr(Writer, "_is_remote", staticmethod(lambda path: True))
    write(tmp_path, PAYLOADS)
    folder = tmp_path / "a.journal"
    assert sorted(path.name for path in folder.iterdir()) == [str(n) for n in range(len(PAYLOADS))]
    assert journal.read(tmp_path) == Contents(PAYLOADS, [])
    bad = bytearray((folder / "1").read_bytes())
    bad[-1] ^= 1
    (folder / "1").write_bytes(bytes(bad))
    contents = journal.read(tmp_path)
    assert contents.payloads == PAYLOADS[:1] + PAYLOADS[2:]
    assert contents.damaged == [f"{folder / '1'}, bytes 0 to {len(bad)}"]
