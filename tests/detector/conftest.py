"""One detector for all tests."""

from collections.abc import Iterator

import pytest
from support.detector import HF

from lxmert_tf.detector import FasterRCNN


@pytest.fixture(scope="session")
def detector() -> FasterRCNN:
    """The golden detector, in float32."""
    return FasterRCNN.from_pretrained(HF)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Nothing is compiled, which takes longer than to run the network once."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
