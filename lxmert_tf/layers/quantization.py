"""What LoRA, `quantize` and quantized dtype policies find in layers: the weights that these compute with, as floats."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from lxmert_tf.keras_private import flat_layers


class InFloat(keras.layers.Layer):
    """Mixin of layers with nothing to quantize, before one of Keras': under any policy they compute in float."""

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """Nothing; Keras' warns that it is left out."""

    def quantized_call(self, *args: Any, **kwargs: Any):
        """As `call`."""
        return self.call(*args, **kwargs)


# The weight that Keras quantizes or adds LoRA to


def has_weight(layer: keras.layers.Layer) -> bool:
    """Whether Keras can quantize a layer or add LoRA to it."""
    return isinstance(layer, keras.layers.Dense | keras.layers.Embedding)


def weight_name(layer: keras.layers.Layer) -> str:
    """How Keras calls the weight of a layer that has one: "kernel" or "embeddings"."""
    return "kernel" if isinstance(layer, keras.layers.Dense) else "embeddings"


def is_integer(layer: keras.layers.Layer) -> bool:
    """Whether the weight is kept in integers, which float8 does not do."""
    return layer.quantization_mode not in (None, "float8")


def is_adapted(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes with another weight than its variable holds."""
    return has_weight(layer) and (layer.lora_enabled or is_integer(layer))


def merged_weight(layer: keras.layers.Layer):
    """The kernel or table that a layer computes with, in its variables' dtype: LoRA added, integers scaled back.

    Raises:
        ValueError: it is quantized in another way than "int8", "int4" and "float8".
    """
    name, weight = weight_name(layer), _dequantized(layer)
    if layer.lora_enabled:
        a, b = (getattr(layer, f"lora_{name}_{factor}") for factor in "ab")
        weight = ops.add(weight, (layer.lora_alpha / layer.lora_rank) * ops.matmul(a, b))
    return ops.cast(weight, layer.variable_dtype)


def _dequantized(layer: keras.layers.Layer):
    """The weight without LoRA, in float."""
    name, weight = weight_name(layer), _without_lora(layer)
    if not is_integer(layer):
        return weight
    if layer.quantization_mode not in ("int8", "int4"):
        raise ValueError(
            f"{layer.path} is quantized by {layer.quantization_mode!r}, whose weights are not read as floats; "
            "model.save() keeps them."
        )
    scale, zero = getattr(layer, f"{name}_scale"), getattr(layer, f"{name}_zero", None)
    weight = ops.cast(weight, scale.dtype)
    if zero is None:  # a scale for each unit or row
        return weight / (ops.expand_dims(scale, -1) if name == "embeddings" else scale)
    groups = ops.cast(layer.g_idx, "int32")
    scale, zero = (ops.take(each, groups, axis=1 if name == "embeddings" else 0) for each in (scale, zero))
    return (weight - ops.cast(zero, scale.dtype)) * scale


def _without_lora(layer: keras.layers.Layer):
    """The weight as it is kept, of 4 bits one number each; Keras would add LoRA to the integers."""
    enabled, layer.lora_enabled = layer.lora_enabled, False
    try:
        return getattr(layer, weight_name(layer))
    finally:
        layer.lora_enabled = enabled


# In a model's config


def quantized_layers(model: keras.Model) -> dict[str, dict]:
    """How each quantized layer of a model is quantized, by its path inside the model."""
    return {
        layer.path.removeprefix(f"{model.path}/"): {
            "mode": layer.quantization_mode,
            "config": keras.saving.serialize_keras_object(getattr(layer, "quantization_config", None)),
        }
        for layer in flat_layers(model)
        if has_weight(layer) and layer.quantization_mode
    }


def quantize_layers(model: keras.Model, quantized: dict[str, dict]) -> None:
    """Quantizes those layers of a model that `quantized_layers` names, but for those that its dtype policy has."""
    with old_objects_kept():
        for layer in filter(has_weight, flat_layers(model)):
            how = quantized.get(layer.path.removeprefix(f"{model.path}/"))
            if how and not layer.quantization_mode:
                config = keras.saving.deserialize_keras_object(how["config"])
                layer.quantize(how["mode"], **({"config": config} if config else {}))


@contextmanager
def old_objects_kept() -> Iterator[None]:
    """Keras collects garbage for each layer that it quantizes, of which here only what is new is looked through.

    With TensorFlow in memory that takes a third of a second for each layer otherwise.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
