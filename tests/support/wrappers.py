"""Models around ours and subclasses of them, as users write them; loaded and compared in a process of its own.

Usage: python wrappers.py DIRECTORY, which `save_all` has written.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops
from support.models import batch, tiny_config

from lxmert_tf import TFLxmertForQuestionAnswering, TFLxmertModel
from lxmert_tf.pretrained import TFLxmertPreTrainedModel

registered = keras.saving.register_keras_serializable("tests")
SMALL = {"l_layers": 1, "r_layers": 0, "x_layers": 1}


# Around ours


@registered
class Classifier(keras.Model):
    """A head on a backbone, or on anything that gives one of the outputs below."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.head = inner, keras.layers.Dense(6, bias_initializer="normal")

    def call(self, x, training=False):
        return self.head(features(self.inner(x, training=training)))

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)


@registered
class OverFrames(Classifier):
    """Several images of each example, one after the other."""

    def call(self, x, training=False):
        frames = [{**x, "visual_feats": x["visual_feats"][:, i], "visual_pos": x["visual_pos"][:, i]} for i in range(2)]
        return ops.stack([super(OverFrames, self).call(frame, training=training) for frame in frames], axis=1)


@registered
class Chain(keras.Model):
    """Layers one after the other."""

    def __init__(self, layers, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(layers)

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x

    def get_config(self):
        return {**super().get_config(), "layers": [keras.saving.serialize_keras_object(part) for part in self.parts]}

    @classmethod
    def from_config(cls, config):
        return cls([keras.saving.deserialize_keras_object(part) for part in config.pop("layers")], **config)


@registered
class Features(keras.layers.Layer):
    def call(self, output):
        return features(output)


def features(output):
    for name in ("pooled_output", "question_answering_score"):
        if isinstance(output, dict) and name in output:
            return output[name]
    return output


def functional(inner):
    inputs = {
        "input_ids": keras.Input((None,), dtype="int32", name="input_ids"),
        "visual_feats": keras.Input((None, 9), name="visual_feats"),
        "visual_pos": keras.Input((None, 4), name="visual_pos"),
    }
    return keras.Model(inputs, keras.layers.Dense(6, bias_initializer="normal")(features(inner(inputs))))


# Subclasses of ours


@registered
class Bottleneck(keras.layers.Layer):
    """Has no `build`: Keras builds its parts when it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.down, self.up = keras.layers.Dense(3), keras.layers.Dense(5, bias_initializer="normal")

    def call(self, x):
        return self.up(self.down(x))


@registered
class WithLayers(TFLxmertForQuestionAnswering):
    """Layers, a list of them and a weight, made after `super().__init__`."""

    def __init__(self, config, width=4, **kwargs):
        super().__init__(config, **kwargs)
        self.width = width
        self.hidden = [keras.layers.Dense(width, bias_initializer="normal"), keras.layers.LayerNormalization()]
        self.bottleneck = Bottleneck()
        self.temperature = self.add_weight(name="temperature", shape=(), initializer="ones")

    def call(self, inputs, training=False):
        output = super().call(inputs, training=training)
        x = output.question_answering_score
        for layer in self.hidden:
            x = layer(x)
        output["question_answering_score"] = self.bottleneck(x) * self.temperature
        return output

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@registered
class WithBuild(TFLxmertModel):
    """A head that a `build` makes."""

    def build(self, input_shape):
        super().build(input_shape)
        self.head = keras.layers.Dense(6, bias_initializer="normal")
        self.head.build((None, 12))

    def call(self, inputs, training=False):
        return self.head(super().call(inputs, training=training).pooled_output)


def qa():
    return TFLxmertForQuestionAnswering(tiny_config(**SMALL))


def backbone():
    return TFLxmertModel(tiny_config(**SMALL))


MAKERS = {
    "backbone": lambda: Classifier(backbone()),
    "task model": lambda: Classifier(qa()),
    "nested": lambda: Classifier(Classifier(backbone())),
    "frames": lambda: OverFrames(backbone()),
    "chain": lambda: Chain([backbone(), Features(), keras.layers.Dense(4)]),
    "sequential": lambda: keras.Sequential([backbone(), Features(), keras.layers.Dense(4)]),
    "functional": lambda: functional(backbone()),
    "functional task": lambda: functional(qa()),
    "around functional": lambda: Classifier(functional(backbone())),
    "subclass": lambda: WithLayers(tiny_config(**SMALL), width=7),
    "subclass inside": lambda: Classifier(WithLayers(tiny_config(**SMALL), width=7)),
    "own build": lambda: WithBuild(tiny_config(**SMALL)),
}
# A backbone and a task model inside others, in a functional model and a chain, subclassed, and a subclass inside;
# of a Sequential model that is called with a dict Keras knows no inputs.
EXPORTED = ("nested", "chain", "functional task", "subclass", "subclass inside")


def inputs_of(kind: str) -> dict[str, np.ndarray]:
    x = {name: value for name, value in batch(qa()).items() if name in ("input_ids", "visual_feats", "visual_pos")}
    if kind == "frames":
        x |= {name: np.stack([x[name], x[name] / 2], axis=1) for name in ("visual_feats", "visual_pos")}
    return x


def answer(model, x) -> np.ndarray:
    return ops.convert_to_numpy(features(model(x)))


def built(kind: str, x: dict) -> keras.Model:
    """A model whose every weight is random."""
    model = MAKERS[kind]()
    answer(model, x)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + 0.2 * rng.standard_normal(weight.shape))
    return model


def loaded_differs_by(kind: str, directory: Path) -> float:
    """How far a `.keras` file, loaded in this process, is from what was saved."""
    x = inputs_of(kind)
    model = built(kind, x)
    model.save(directory / "model.keras")
    return float(np.abs(answer(keras.saving.load_model(directory / "model.keras"), x) - answer(model, x)).max())


def save_all(directory: Path) -> None:
    """Models in every format, and what they compute."""
    for kind in MAKERS:
        folder, x = directory / kind, inputs_of(kind)
        folder.mkdir()
        model = built(kind, x)
        np.save(folder / "answer.npy", answer(model, x))
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        if kind in EXPORTED and keras.backend.backend() == "tensorflow":
            is_ours = isinstance(model, TFLxmertPreTrainedModel)  # whose default is all inputs, of any length
            signature = {name: keras.InputSpec(value.dtype, value.shape) for name, value in x.items()}
            model.export(folder / "exported", verbose=False, input_signature=[signature] if is_ours else None)


def differences(directory: Path) -> dict[str, float]:
    """The largest difference of what is loaded, by kind and format."""
    found = {}
    for kind, make in MAKERS.items():
        folder, x = directory / kind, inputs_of(kind)
        wanted = np.load(folder / "answer.npy")
        again = make()
        answer(again, x)
        again.load_weights(folder / "model.weights.h5")
        answers = {"keras": answer(keras.saving.load_model(folder / "model.keras"), x), "weights": answer(again, x)}
        if (folder / "exported").exists():
            answers["exported"] = served(folder / "exported", x)
        found |= {f"{kind}, {name}": float(np.abs(got - wanted).max()) for name, got in answers.items()}
    return found


def served(directory: Path, x: dict) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(directory)
    serve = loaded.serve
    wanted = keras.tree.flatten(serve._list_all_concrete_functions()[0].structured_input_signature)
    by_name = {spec.name: spec.dtype for spec in wanted}
    dtypes = by_name if set(x) <= set(by_name) else dict(zip(sorted(x), (spec.dtype for spec in wanted), strict=False))
    tensors = {name: tf.cast(value, dtypes[name]) for name, value in x.items()}
    return features(serve(tensors)).numpy()


if __name__ == "__main__":
    print(json.dumps(differences(Path(sys.argv[1]))))
