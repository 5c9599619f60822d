"""A run directory is one run's: the same command goes on, another is refused with the difference named."""

import json

import pytest

from lxmert_tf.training.run_directory import BACKUP, RunDirectory, fingerprint

OPTIONS = {"task": "vqa", "epochs": 2, "train": ["a.json"]}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    return path


def begin(tmp_path, data, **changes):
    run = RunDirectory.open(tmp_path / "run", {**OPTIONS, **changes}, ["lxmert-tf", "train"], [data])
    run.start()
    return run


def back_up(tmp_path):
    (tmp_path / "run" / BACKUP).write_text("from here")


def test_a_new_run_notes_options_command_versions_and_checksums(tmp_path, data):
    run = begin(tmp_path, data)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["options"] == OPTIONS
    assert record["command"] == ["lxmert-tf", "train"]
    assert record["files"] == {str(data): fingerprint(data)}
    assert {"python", "tensorflow", "keras"} <= record["versions"].keys()
    assert run.result is None


def test_the_same_options_go_on_and_know_the_result(tmp_path, data):
    begin(tmp_path, data).finish({"epochs": 2})
    assert begin(tmp_path, data).result == {"epochs": 2}


def test_other_options_are_refused_by_name(tmp_path, data):
    begin(tmp_path, data)
    back_up(tmp_path)
    with pytest.raises(ValueError, match=r"another run, with epochs 2 instead of 3; give the same options"):
        begin(tmp_path, data, epochs=3)
    with pytest.raises(ValueError, match=r"2 differ: epochs, seed"):
        begin(tmp_path, data, epochs=3, seed=1)


def test_changed_input_files_are_refused(tmp_path, data):
    begin(tmp_path, data)
    back_up(tmp_path)
    data.write_text("[2]")
    with pytest.raises(
        ValueError, match=r"another run, with .*a\.json .* instead of .* the files that it started with"
    ):
        begin(tmp_path, data)


def test_a_directory_with_something_else_is_left_alone(tmp_path, data):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty and holds no run"):
        begin(tmp_path, data)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


def test_a_damaged_record_is_named(tmp_path, data):
    begin(tmp_path, data)
    (tmp_path / "run" / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"Cannot read .*run\.json"):
        begin(tmp_path, data)


def test_two_processes_do_not_write_to_the_same_run(tmp_path, data):
    run = begin(tmp_path, data)
    with run.lock(), pytest.raises(FileExistsError, match="Another process is using"), run.lock():
        pytest.fail("it was locked twice")
    with run.lock():
        pass


def test_what_ended_before_its_first_backup_may_be_begun_otherwise(tmp_path, data):
    begin(tmp_path, data)
    begin(tmp_path, data, epochs=3)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["options"]["epochs"] == 3


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_never_began_leaves_no_trace(tmp_path, data, there):
    if there:
        (tmp_path / "run").mkdir()
    run = RunDirectory.open(tmp_path / "run", OPTIONS, [], [data])
    with run.lock():
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not list((tmp_path / "run").glob("*"))
    assert (tmp_path / "run").exists() == there
    with (run := RunDirectory.open(tmp_path / "run", {**OPTIONS, "epochs": 3}, [], [data])).lock():
        run.start()
    with RunDirectory.open(tmp_path / "run", OPTIONS, [], [data]).lock():
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
