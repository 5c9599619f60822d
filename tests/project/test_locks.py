"""One process at a time: locks wait or refuse, and end with whoever holds them, on Windows too."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from types import SimpleNamespace

import pytest

from lxmert_tf.files import staged, staging
from lxmert_tf.locks import locked

HOLD = """
import sys, time
from lxmert_tf.locks import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


class Windows:
    """`msvcrt` with the locks of this system: it refuses with PermissionError, and locks from the position on."""

    LK_NBLCK = 2

    def locking(self, descriptor, mode, size):
        assert (mode, size, os.lseek(descriptor, 0, os.SEEK_CUR)) == (self.LK_NBLCK, 1, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error


@pytest.fixture(params=["posix", "windows"])
def system(request, monkeypatch):
    if request.param == "windows":
        monkeypatch.setitem(sys.modules, "fcntl", None)  # importing it fails
        monkeypatch.setitem(sys.modules, "msvcrt", Windows())
    return request.param


def test_a_lock_is_refused_while_it_is_held_and_leaves_nothing(tmp_path, system):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pytest.fail("it was locked twice")
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "lock", wait=False):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_threads_take_turns(tmp_path, system):
    inside, most = [], []

    def work():
        for _ in range(5):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] * 20


def test_a_killed_process_lets_go(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pytest.fail("it was locked twice")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", wait=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_removed_file_is_none(tmp_path, monkeypatch):
    """Who opened the file before its holder removed it must not share the lock with who creates it anew."""
    flock, removed = fcntl.flock, []

    def remove_first(file, operation):
        if not removed:
            removed.append(os.unlink(tmp_path / "lock"))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pytest.fail("it was locked twice")


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setitem(sys.modules, "fcntl", SimpleNamespace(flock=refuse, LOCK_EX=2, LOCK_NB=4))
    with (
        pytest.raises(OSError, match=r"Cannot lock this file \(No locks available\): .*lock"),
        locked(tmp_path / "lock"),
    ):
        pytest.fail("it was locked")
    assert not list(tmp_path.iterdir())
    with staged(tmp_path / "out") as new:
        new.write_text("written all the same")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unfinished_directories_are_removed_once_nobody_holds_them(tmp_path, system):
    (tmp_path / ".partial-a" / "x").mkdir(parents=True)
    (tmp_path / ".partial-a" / ".lock").touch()
    (tmp_path / ".partial-b").mkdir()  # without a lock: not known to be abandoned
    with staging(tmp_path) as first, staging(tmp_path) as second:
        (first / "file").touch()
        assert set(tmp_path.iterdir()) == {first, second, tmp_path / ".partial-b"}
    assert [path.name for path in tmp_path.iterdir()] == [".partial-b"]


def test_a_directory_locked_by_another_before_its_owner_is_given_up(tmp_path, monkeypatch):
    make, made = tempfile.mkdtemp, []

    def make_and_lose(**options):
        made.append(make(**options))
        if len(made) == 1:
            shutil.rmtree(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with staging(tmp_path) as folder:
        assert str(folder) == made[1]


def test_a_directory_takes_the_place_of_another_whole_or_not_at_all(tmp_path, system):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()

    def fail():
        with staged(tmp_path / "out") as new:
            new.mkdir()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    with staged(tmp_path / "out") as new:
        new.mkdir()
        (new / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupt_between_the_two_moves_puts_the_old_directory_back(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    replace, moves = os.replace, []

    def interrupted(old, new):
        moves.append(new)
        if len(moves) == 2:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "out") as new:
        new.mkdir()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
