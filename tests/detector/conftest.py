"""One detector for all tests."""

import pytest
from support.detector import HF

from lxmert_tf.detector import FasterRCNN


@pytest.fixture(scope="session")
def detector() -> FasterRCNN:
    """The golden detector, in float32."""
    return FasterRCNN.from_pretrained(HF)
