"""Files are replaced whole or not at all, and only files are."""

import os

import pytest

from lxmert_tf.files import check_apart, check_place, replacing, write_text


def test_a_file_and_a_link_to_one_are_replaced(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "file.txt")
    for name in ("file.txt", "link.txt", "new.txt"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_what_is_no_file_is_left_as_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "a device or a pipe"), ("link", "a device or a pipe"), ("folder", "a directory")):
        with pytest.raises(FileExistsError, match=f"{name} is {kind}"), replacing(tmp_path / name):
            pytest.fail("it was opened")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "folder"}


def test_where_no_file_can_be_written(tmp_path):
    check_place(tmp_path / "new.txt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match=r"There is no directory '.*nowhere' to write new.txt in"):
        check_place(tmp_path / "nowhere" / "new.txt")
    with pytest.raises(FileExistsError, match="is a directory, which is not replaced"):
        check_place(tmp_path)
    if not os.path.isdir("/proc"):
        pytest.skip("no directory that takes no files, whoever asks")
    with pytest.raises(OSError, match=r"^/proc/new\.txt cannot be written: No such file or directory"):
        check_place("/proc/new.txt")
    with pytest.raises(OSError, match="No such file") as caught:
        write_text("/proc/new.txt", "new")
    assert caught.value.filename == "/proc/new.txt"


def test_an_output_is_none_of_the_inputs(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    check_apart(tmp_path / "other", [tmp_path / "one", None, tmp_path / "missing"])
    check_apart(tmp_path / "missing", [tmp_path / "missing"])
    with pytest.raises(ValueError, match="link would be overwritten, but it is also an input"):
        check_apart(tmp_path / "link", [tmp_path / "other", tmp_path / "one"])
