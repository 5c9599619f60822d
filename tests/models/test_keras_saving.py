"""What a model writes, another process reads: `.keras`, `.weights.h5`, model directories and SavedModels."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support.golden import REL32, assert_close
from support.models import batch, flat, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning

# What is read after imports in either order, and how
READERS = {
    "import keras, lxmert_tf": {"model.keras": "keras.saving.load_model(path)"},
    "import lxmert_tf, keras": {
        "directory": "getattr(lxmert_tf, name).from_pretrained(path)",
        "model.weights.h5": "with_weights(path)",
        "model.keras": "keras.saving.load_model(path)",
    },
}
RUN = """
import sys
{imports}
import numpy as np

def with_weights(path):
    model = getattr(lxmert_tf, name)(lxmert_tf.LxmertConfig.from_pretrained(folder + "/directory"))
    model.load_weights(path)
    return model

for folder in sys.argv[1:]:
    name = folder.rpartition("/")[2]
    for file, read in {readers}.items():
        path = folder + "/" + file
        model = eval(read)
        with np.load(folder + "/inputs.npz") as arrays:
            output = model(dict(arrays), return_dict=True)
        np.savez(path + ".npz", **{{key: np.asarray(value) for key, value in output.items()}})
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Models in every format, their inputs and what they compute: folders by the name of the class."""
    folder, outputs = tmp_path_factory.mktemp("saved"), {}
    for model_class in (TFLxmertForPreTraining, TFLxmertForQuestionAnswering):
        own = folder / model_class.__name__
        model = tiny_model(model_class, hidden_dropout_prob=0.1)
        model.save_pretrained(own / "directory")
        model.save(own / "model.keras")
        model.save_weights(own / "model.weights.h5")
        np.savez(own / "inputs.npz", **batch(model))
        outputs[own] = flat(model(batch(model)))
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("imports", READERS)
def test_a_fresh_process_computes_the_same(imports, saved):
    script = RUN.format(imports=imports, readers=READERS[imports])
    finished = subprocess.run([sys.executable, "-c", script, *map(str, saved)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    for folder, wanted in saved.items():
        for file in READERS[imports]:
            with np.load(folder / f"{file}.npz") as outputs:
                assert set(outputs) == set(wanted)
                for name, value in wanted.items():
                    assert_close(outputs[name], value, 1e-6, f"{file}: {name}")
            (folder / f"{file}.npz").unlink()


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
@pytest.mark.parametrize("model_class", [TFLxmertForPreTraining, TFLxmertForVisualReasoning], ids=lambda c: c.__name__)
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
