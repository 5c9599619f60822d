"""Several devices and several processes train as one does: real processes, real gRPC on loopback."""

import json
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from support.forks import ROOT, Fork

from lxmert_tf.training import distribution

WORKER = ROOT / "tests" / "support" / "training_worker.py"
STEPS = 18
# float64: the order of additions differs between one device and several
TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def start(forked):
    """Starts a worker, a process of its own, that writes to a directory."""

    def start(output: Path, *arguments: str, tf_config: dict | None = None) -> Fork:
        output.mkdir(exist_ok=True)
        env = {"TF_CONFIG": json.dumps(tf_config)} if tf_config else {}
        return forked(WORKER, output, *arguments, CUDA_VISIBLE_DEVICES="", **env)

    return start


def finish(*processes: Fork) -> None:
    """Waits for success."""
    try:
        for process in processes:
            printed, said = process.communicate()
            assert process.returncode == 0, (printed + said)[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def group(start):
    """Starts two workers; the second dies at a step if told to."""

    def start_both(output: Path, die_at: int | None = None) -> list[Fork]:
        workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
        processes = []
        for index in range(2):
            arguments = ["--die-at", str(die_at)] if die_at and index == 1 else []
            task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            processes.append(start(output, *arguments, tf_config=task))
        return processes

    return start_both


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def results(output: Path, worker: int = 0) -> dict[str, np.ndarray]:
    with np.load(output / f"worker-{worker}.npz") as arrays:
        return dict(arrays)


def weights(found: dict) -> list[np.ndarray]:
    return [value for name, value in sorted(found.items()) if name.startswith("weight-")]


def assert_same_training(found: dict, expected: dict) -> None:
    assert len(expected["losses"]) == STEPS
    done = len(found["losses"])
    np.testing.assert_allclose(found["losses"], expected["losses"][-done:], rtol=0, atol=TOLERANCE)
    epochs = len(found["val_loss"])
    np.testing.assert_allclose(found["val_loss"], expected["val_loss"][-epochs:], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found["val_accuracy"], expected["val_accuracy"][-epochs:], rtol=0, atol=TOLERANCE)
    for one, other in zip(weights(found), weights(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)
    assert np.ptp(expected["losses"]) > 0.1  # it does train


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The same training in one process on one device."""
    output = tmp_path_factory.mktemp("alone")
    finish(start(output))
    return results(output)


@pytest.mark.slow
def test_four_devices_train_as_one(start, tmp_path, alone):
    finish(start(tmp_path, "--devices", "4"))
    assert_same_training(results(tmp_path), alone)
    assert results(tmp_path)["replicas"].tolist() == [0, 1, 2, 3]


@pytest.mark.slow
def test_two_workers_train_as_one_process_and_end_in_the_same_weights(group, tmp_path, alone):
    finish(*group(tmp_path))
    first, second = results(tmp_path, 0), results(tmp_path, 1)
    assert_same_training(first, alone)
    assert [*first["replicas"], *second["replicas"]] == [0, 1]
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_group_goes_on_after_one_of_its_workers_was_killed(group, tmp_path, alone):
    workers = group(tmp_path, die_at=11)
    assert workers[1].wait() == -signal.SIGKILL
    workers[0].kill()  # a supervisor restarts the whole group; until then the other waits for it
    workers[0].wait()
    finish(*group(tmp_path))
    found = results(tmp_path)
    assert int(found["first"]) == 8  # the last backup: every fourth step, and the end of an epoch, which has six
    assert_same_training(found, alone)
    for one, other in zip(weights(found), weights(results(tmp_path, 1)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("examples", "expected"), [(0, 8), (16, 8), (20, 8), (17, 12), (18, 12), (19, 12), (3, 8), (25, 16)]
)
def test_every_device_has_a_share_of_the_last_batch(examples, expected):
    class Strategy:
        num_replicas_in_sync = 4

    assert distribution.even_batch_size(7, examples, Strategy) == expected
    assert examples < 4 or not 0 < examples % expected < 4


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "v", "index": 0}}',
    ],
)
def test_a_tf_config_that_cannot_be_used_is_told(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must read"):
        distribution.make_strategy()
