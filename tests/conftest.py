"""Keeps torch to one thread, as golden models are too small for more, and the garbage collector to what tests make."""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


def pytest_collection_finish() -> None:
    """TensorFlow, Keras and PyTorch are imported by now: half a million objects that each collection would visit."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def forked():
    """Starts Python programs that use TensorFlow, without the time that they would take to import it."""
    from support.forks import Forks

    with Forks() as forks:
        yield forks


@pytest.fixture
def eagerly():
    """Nothing is compiled, which takes longer than to run a network a few times."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
