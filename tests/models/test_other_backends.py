"""What other files hold under TensorFlow they hold under Keras' other backends, in a process of its own each."""

from pathlib import Path

import pytest
from support.golden import assert_passes_under

HERE = Path(__file__).parent
FILES = {
    "torch": (
        "test_keras_golden.py",
        "test_encoded_images.py",
        "test_dropout.py",
        "test_fused_attention.py",
        "../explain/test_golden_relevance.py",
    ),
    "jax": ("test_keras_golden.py", "test_encoded_images.py"),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", FILES)
def test_it_holds_under_the_other_backends(backend):
    pytest.importorskip(backend)
    assert_passes_under(backend, *(HERE / file for file in FILES[backend]))
