"""The layers that a subclass adds to a model: built when it is loaded as they were when it was saved.

Keras builds a loaded model by calling it with what was in its first call, of which it knows the shapes only. That is
too little for a `call` with arguments of its own; each layer knows better what it was built with.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from lxmert_tf.keras_private import sublayers


def build_configs(layers: Iterable[keras.layers.Layer]) -> list[dict[str, Any]]:
    """What `build_layers` takes, of layers that are built."""
    return [
        {
            "build_config": layer.get_build_config(),
            # Models look after their layers themselves.
            "layers": [] if isinstance(layer, keras.Model) else build_configs(sublayers(layer)),
        }
        for layer in layers
    ]


def build_layers(layers: Iterable[keras.layers.Layer], configs: Sequence[dict[str, Any]]) -> None:
    """Builds those of the layers that are not built."""
    for layer, config in zip(layers, configs, strict=False):
        build_layers(sublayers(layer), config["layers"])
        if not layer.built and config["build_config"]:
            layer.build_from_config(config["build_config"])
            build_layers(sublayers(layer), config["layers"])  # such as its `build` has made
