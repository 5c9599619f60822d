"""What a model writes, another process reads: `.keras`, `.weights.h5`, model directories and SavedModels."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support.golden import REL32, assert_close
from support.models import MODELS, batch, flat, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering

every_model = pytest.mark.parametrize("model_class", MODELS, ids=lambda c: c.__name__)

READERS = {
    "model.keras": "import keras, lxmert_tf; model = keras.saving.load_model(path)",
    "model.keras, other order": "import lxmert_tf, keras; model = keras.saving.load_model(path)",
    "directory": "import lxmert_tf; model = getattr(lxmert_tf, name).from_pretrained(path)",
    "model.weights.h5": (
        "import lxmert_tf; config = lxmert_tf.LxmertConfig.from_pretrained(sys.argv[4]); "
        "model = getattr(lxmert_tf, name)(config); model.load_weights(path)"
    ),
}
RUN = """
import sys
import numpy as np
name, path, folder = sys.argv[1], sys.argv[2], sys.argv[3]
{read}
with np.load(folder + "/inputs.npz") as arrays:
    output = model(dict(arrays), return_dict=True)
np.savez(folder + "/outputs.npz", **{{key: np.asarray(value) for key, value in output.items()}})
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize(
    "model_class", [TFLxmertForPreTraining, TFLxmertForQuestionAnswering], ids=lambda c: c.__name__
)
def test_a_fresh_process_computes_the_same(model_class, how, tmp_path):
    model = tiny_model(model_class, hidden_dropout_prob=0.1)
    model.save_pretrained(tmp_path / "directory")
    path = tmp_path / how.split(",")[0]
    if path.suffix == ".keras":
        model.save(path)
    elif path.suffix == ".h5":
        model.save_weights(path)
    np.savez(tmp_path / "inputs.npz", **batch(model))
    command = [sys.executable, "-c", RUN.format(read=READERS[how]), model_class.__name__, path, tmp_path]
    finished = subprocess.run([*command, tmp_path / "directory"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    wanted = flat(model(batch(model)))
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert set(outputs) == set(wanted)
        for name, value in wanted.items():
            assert_close(outputs[name], value, 1e-6, name)


def test_training_goes_on_after_a_keras_round_trip(tmp_path):
    import keras

    model = tiny_model()
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"], run_eagerly=True, jit_compile=False
    )
    model.fit(batch(model), labels(model)["labels"], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(batch(model), labels(model)["labels"], verbose=0)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # threads add up in another order each time


@pytest.mark.slow
@every_model
def test_export_keeps_names_and_dtypes_and_any_size(model_class, tmp_path):
    model = tiny_model(model_class)
    model.export(tmp_path / "saved_model", verbose=False)
    signature = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    assert {name: spec.dtype.name for name, spec in specs.items()} == {
        "input_ids": "int32",
        "visual_feats": "float32",
        "visual_pos": "float32",
        "attention_mask": "int32",
        "visual_attention_mask": "int32",
        "token_type_ids": "int32",
    }
    for sizes in ((1, 3, 2), (4, 16, 9)):
        inputs = batch(model, *sizes)
        outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        wanted = flat(model(inputs))
        assert set(outputs) == set(wanted)
        for name, value in wanted.items():
            assert_close(outputs[name], value, REL32, name)
