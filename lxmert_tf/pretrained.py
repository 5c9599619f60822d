"""What the four models share: construction from a config, saving, loading, export, and changing sizes."""

import copy
import inspect
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from conversion.formats import weight_files
from conversion.models import assign, loading_info, state_dict
from conversion.readers import is_quantized
from conversion.report import some
from conversion.source import open_source
from conversion.writers import checkpoint_format, write_checkpoint
from lxmert_tf.added_layers import build_configs, build_layers
from lxmert_tf.attributes import ModelAttributes
from lxmert_tf.configuration import CONFIG_NAME, SETTINGS, LxmertConfig, checked_size, padded_size
from lxmert_tf.exported import Exported
from lxmert_tf.hub import UPLOAD_OPTIONS, upload
from lxmert_tf.input_table import INPUTS, SIGNATURE_INPUTS, TABLE
from lxmert_tf.keras_private import (
    allow_any_positional,
    build_at_init,
    flat_layers,
    register_node,
    replace_weight,
    set_value,
    stored_variable,
    sublayers,
    without_values,
)
from lxmert_tf.layers.attention import score_dtype
from lxmert_tf.layers.primitives import truncated_normal
from lxmert_tf.layers.quantization import (
    has_weight,
    is_adapted,
    is_integer,
    merged_weight,
    old_objects_kept,
    quantize_layers,
    quantized_layers,
    weight_name,
)
from lxmert_tf.losses import Loss
from lxmert_tf.model_card import write_model_card
from lxmert_tf.outputs import (
    ModelOutput,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertForVisualReasoningOutput,
    TFLxmertModelOutput,
    outputs_are_named,
)
from lxmert_tf.upstream_arguments import translate

logger = logging.getLogger("lxmert_tf")

MODEL_OPTIONS = ("name", "trainable")  # what a Keras model is made with, beyond its config and dtype
SWITCHES = frozenset({"output_attentions", "output_hidden_states", "return_dict", "training", "head_mask"})

_Model = TypeVar("_Model", bound="TFLxmertPreTrainedModel")
_Output = TypeVar("_Output", bound=ModelOutput)

for output in (
    TFLxmertModelOutput,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertForVisualReasoningOutput,
):
    register_node(output)


class TFLxmertPreTrainedModel(ModelAttributes, keras.Model):
    """Base of the LXMERT models. Weights exist as soon as a model is constructed.

    Args:
        config: sizes and rates, ours or a `transformers.LxmertConfig`; the model takes a copy.
        dtype: a Keras dtype or dtype policy.
        nested: the model is part of another, which builds it under its own name.
        initializer: of every kernel and embedding table. Default: the config's truncated normal.

    Attributes:
        task: what a checkpoint of the class holds: "model", "pretraining", "qa" or "visual-reasoning".
        answers: the output that holds the scores of what it answers, or None.
        num_images: images of each example; where there are several, the inputs of images have an axis for them.

    Source: upstream `TFLxmertPreTrainedModel`.
    """

    config_class = LxmertConfig
    task: str
    answers: str | None = None
    num_images = 1
    _own_layers = 0
    _source = ""  # of the weights: what `from_pretrained` was given

    def __init__(self, config: LxmertConfig, nested: bool = False, initializer: Any = None, **kwargs: Any):
        config = LxmertConfig.of(config)
        # No autocast: labels and soft scores keep their dtype, and the layers cast what they compute with.
        super().__init__(autocast=False, **kwargs)
        # A model owns its config, which `resize_token_embeddings` and others change; its parts share it.
        self.config, self.nested = config if nested else copy.deepcopy(config), nested
        self.initializer = initializer or truncated_normal(config)
        allow_any_positional(self)

    def options(self) -> dict:
        """What its parts are made with: its dtype policy and initializer."""
        return {"dtype": self.dtype_policy, "initializer": self.initializer}

    def get_backbone(self) -> keras.Model:
        """The model of the encoders: this one, or the one that its heads stand on.

        A method, since Keras saves what it finds in attributes under their names.
        """
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras'; a dict of inputs may hold the call's switches, too, as upstream's may."""
        switches = SWITCHES & set(args[0]) if args and isinstance(args[0], Mapping) else None
        if switches:
            inputs = {name: value for name, value in args[0].items() if name not in switches}
            kwargs = {name: args[0][name] for name in switches} | kwargs
            args = (inputs, *args[1:])
        return super().__call__(*args, **kwargs)

    def build_root(self) -> None:
        if not self.nested:
            build_at_init(self, self.build_layers, is_built=type(self).build is TFLxmertPreTrainedModel.build)
        self._own_layers = len(sublayers(self))

    def added_layers(self) -> list[keras.layers.Layer]:
        """The layers that a subclass has after those of the constructor."""
        return sublayers(self)[self._own_layers :] if self._own_layers else []

    @property
    def built(self) -> bool:
        """Whether all weights exist, also those of layers that a subclass adds; if not, Keras builds it at loading."""
        return self._is_built and all(layer.built for layer in self.added_layers())

    @built.setter
    def built(self, value: bool) -> None:
        self._is_built = value

    def build(self, input_shape: Any = None) -> None:
        if not self.get_backbone().embeddings.built:
            self.build_layers()

    def get_build_config(self) -> dict | None:
        """Of the layers that a subclass adds; the constructor builds the others."""
        return {"model": super().get_build_config(), "layers": build_configs(self.added_layers())}

    def build_from_config(self, config: dict) -> None:
        if type(self).build is not TFLxmertPreTrainedModel.build and config.get("model"):
            super().build_from_config(config["model"])
        build_layers(self.added_layers(), config.get("layers", []))

    def switch(self, name: str, value: Any) -> Any:
        """A call's switch, or the config's where the call leaves it open."""
        return getattr(self.config, name) if value is None else value

    def format_output(self, output: _Output, return_dict: bool | None) -> _Output | tuple:
        named = self.switch("return_dict", return_dict) or (return_dict is None and outputs_are_named())
        return output if named else output.to_tuple()

    @staticmethod
    def assemble_output(output: _Output, encoded: ModelOutput, losses: dict[str, Loss]) -> _Output:
        """`output` with the total of `losses` first and the backbone's hidden states and attentions last."""
        tail = {name: value for name, value in encoded.items() if name in type(output).fields}
        values = {name: loss.value for name, loss in losses.items()}
        total = {"loss": sum(values.values())} if losses else {}
        counts = {name: loss.count for name, loss in losses.items()}
        return type(output)({**total, **output, **tail}, losses=values, counts=counts, encoded=output.encoded)

    # Saving and loading

    def get_config(self) -> dict:
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        own = {"config": self.config.to_dict(), "name": self.name, "trainable": self.trainable, "dtype": policy}
        quantized = quantized_layers(self)
        return {**own, "quantized": quantized} if quantized else own

    @classmethod
    def from_config(cls: type[_Model], config: Any, custom_objects: dict | None = None, **kwargs: Any) -> _Model:
        """A model with fresh weights of what `get_config` gives or, as upstream's, of a config or the dict of one."""
        if not isinstance(config, Mapping):
            return cls(config, **kwargs)
        if "config" not in config:
            return cls(LxmertConfig.from_dict(config), **kwargs)
        config = dict(config)
        quantized = config.pop("quantized", {})
        model = cls(LxmertConfig.from_dict(config.pop("config")), **config, **kwargs)
        quantize_layers(model, quantized)
        return model

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """As of any layer without `compute_output_shape`: what `call` makes of symbolic inputs."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, *input_shapes: Any) -> Any:
        """The shapes of what `call` returns, in the same structure.

        Args:
            input_shapes: the inputs' shapes: a dict by name, a list in the call's order, or one after the other.
        """
        shapes = input_shapes[0] if len(input_shapes) == 1 else input_shapes
        named = shapes if isinstance(shapes, Mapping) else dict(zip(INPUTS, shapes, strict=False))
        inputs = {
            name: keras.KerasTensor(shape, TABLE[name].dtype) for name, shape in named.items() if shape is not None
        }
        return keras.tree.map_structure(lambda spec: spec.shape, self.compute_output_spec(inputs))

    def quantize(self, mode: str | None = None, **kwargs: Any) -> None:
        """As Keras': every dense layer and embedding in "int8", "int4" or "float8"; see there for the arguments."""
        with old_objects_kept():
            super().quantize(mode, **kwargs)

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        """As `call`: a quantized policy is for the layers inside."""
        return self.call(*args, **kwargs)

    def merged_weights(self) -> dict[str, np.ndarray]:
        """What layers with LoRA and quantized ones compute with, by the path of the variable that holds another weight.

        In the variables' dtype: LoRA is added, integers are scaled back.

        Raises:
            ValueError: a layer is quantized in another way than "int8", "int4" and "float8".
        """
        return {
            stored_variable(layer, weight_name(layer)).path: ops.convert_to_numpy(merged_weight(layer))
            for layer in flat_layers(self)
            if is_adapted(layer)
        }

    def prepare_loading(self) -> None:
        """Before other weights are assigned: LoRA adds nothing to them until it is trained again.

        Raises:
            ValueError: a layer is quantized.
        """
        adapted = [layer for layer in flat_layers(self) if is_adapted(layer)]
        for layer in adapted:
            _refuse_quantized(layer, "Load the weights")
        for layer in adapted:
            factor = getattr(layer, f"lora_{weight_name(layer)}_b")
            factor.assign(ops.zeros_like(factor))

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As Keras'.

        Raises:
            ValueError: as Keras'; or the file or the model is quantized, and the other is not.
        """
        modes = [layer.quantization_mode for layer in flat_layers(self) if has_weight(layer) and is_integer(layer)]
        path = Path(str(filepath))
        if path.is_file() and is_quantized(path) != bool(modes):
            raise ValueError(
                f"{path} has weights of floats, but the model is quantized to {modes[0]}. Load them, then quantize."
                if modes
                else f"{path} has the weights of a quantized model, which this one is not. Quantize it in the same way "
                "first, or have keras.saving.load_model load a model that was saved whole."
            )
        super().load_weights(filepath, *args, **kwargs)

    @classmethod
    def from_pretrained(
        cls: type[_Model],
        pretrained_model_name_or_path: Any,
        dtype: Any = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        config: Any = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        proxies: Mapping[str, str] | None = None,
        subfolder: str = "",
        use_safetensors: bool | None = None,
        prefix: str | None = None,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A model with the weights of a checkpoint of any format.

        Args:
            pretrained_model_name_or_path: directory, file, or Hub id such as "unc-nlp/lxmert-base-uncased"; or a model,
                a state dict or an opened checkpoint.
            dtype: a Keras dtype or dtype policy, or "auto" for the checkpoint's; Keras' default, not the file's.
            revision, cache_dir, local_files_only, token, force_download, proxies: for the Hub, as
                `lxmert_tf.hub.fetch` takes them.
            config: in place of the checkpoint's own; ours or upstream's, or the path of a config.json.
            ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.
            subfolder: the folder of the directory or repository to look in.
            use_safetensors: read no files but model.safetensors (True), or none of those (False).
            prefix: what the names of its tensors begin with, in a checkpoint of more; by default it is found. "" is the
                model that is not inside another.
            output_loading_info: return `conversion.models.loading_info` as well.
            **kwargs: values to set in the config, such as `num_qa_labels=3` or `output_attentions=True`; `name` and
                `trainable` of the model; and upstream's other arguments (see `lxmert_tf.upstream_arguments`).

        Returns:
            The model, or the model and a dict of what was loaded.

        Raises:
            FileNotFoundError: no such path or repository, or no checkpoint of that kind in it.
            TypeError: an unknown argument.
            ValueError: the checkpoint is damaged, or lacks tensors other than this model's heads.
        """
        own = (*SETTINGS, *MODEL_OPTIONS, *inspect.signature(cls.from_pretrained).parameters)
        others = translate(f"{cls.__name__}.from_pretrained", kwargs, own)
        dtype, token = others.pop("dtype", dtype), others.pop("token", token)
        options = {name: others.pop(name) for name in MODEL_OPTIONS if name in others}
        checkpoint = open_source(
            pretrained_model_name_or_path,
            config,
            prefix,
            use_safetensors=use_safetensors,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            force_download=force_download,
            proxies=proxies,
            subfolder=subfolder,
        ).with_settings(**others)
        if isinstance(dtype, str) and dtype == "auto":
            dtype = checkpoint.dtype
        with without_values(cls, checkpoint.config, dtype=dtype, **options) as model:
            matched = assign(model, checkpoint, ignore_mismatched_sizes, set_value)
        if isinstance(pretrained_model_name_or_path, str | os.PathLike):
            model.config.name_or_path = model._source = os.fspath(pretrained_model_name_or_path)
        if added := model.added_layers():
            logger.warning(
                "%s: layers of the subclass start anew: %s.", checkpoint.path, some([layer.name for layer in added])
            )
        if output_loading_info:
            return model, loading_info(checkpoint, matched, cls.task, model.config)
        return model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        format: str | None = None,
        max_shard_size: int | str | None = None,
        saved_model: bool = False,
        version: int = 1,
        push_to_hub: bool = False,
        safe_serialization: bool | None = None,
        model_card: bool = True,
        tags: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes config.json, the weights, and README.md, a model card.

        A README.md that is not as `save_pretrained` wrote it stays, in the directory and on the Hub.

        Args:
            save_directory: made if missing.
            format: "keras" (model.weights.h5), "hf-pt" (model.safetensors), "hf-pt-bin" (pytorch_model.bin) or
                "hf-tf" (tf_model.h5). Default: "keras", or as `safe_serialization` says.
            max_shard_size: bytes, or a text such as "5GB"; larger PyTorch checkpoints are split into several files.
            saved_model: also `export` to `saved_model/{version}` in the directory.
            version: of the SavedModel.
            push_to_hub: send what was written to the Hub.
            safe_serialization: True for "hf-pt", False for a format other than that.
            model_card: False to write none.
            tags: of the model card, beside its own.
            **kwargs: `repo_id` (by default the directory's name), `private`, `token`, `commit_message`,
                `commit_description`, `revision`, `create_pr`, as `lxmert_tf.hub.upload` takes them; and upstream's
                other arguments (see `lxmert_tf.upstream_arguments`).

        Raises:
            TypeError: an unknown argument.
            ValueError: an unknown format, or one that contradicts `safe_serialization` or cannot be split.
            FileExistsError: the directory holds another format that would be read instead of this one.
            ConnectionError: the Hub cannot be reached or refuses; the directory is written.
        """
        own = (*UPLOAD_OPTIONS, *inspect.signature(self.save_pretrained).parameters)
        options = translate(f"{type(self).__name__}.save_pretrained", kwargs, own)
        format = checkpoint_format(format, safe_serialization, default="keras")
        path = write_checkpoint(save_directory, state_dict(self), self.config, self.task, format, max_shard_size)
        files = [CONFIG_NAME, path.name, *(file.name for file in weight_files(path))]
        if model_card:
            packages = ("keras", keras.backend.backend())
            card = write_model_card(save_directory, self.task, packages, self._source, tags=tags)
            files += [card.name] if card else []
        if saved_model:
            place = os.path.join("saved_model", str(version))
            self.export(os.path.join(save_directory, place), verbose=False)
            files.append(f"{place}/*")
        if push_to_hub:
            upload(save_directory, files, **options)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> None:
        """Sends the model to a repository on the Hub, which is made if missing: `save_pretrained` with `push_to_hub`.

        Args:
            repo_id: "owner/name", or "name" for one's own.
            **kwargs: as of `save_pretrained`.
        """
        with tempfile.TemporaryDirectory() as directory:
            self.save_pretrained(directory, push_to_hub=True, repo_id=repo_id, **kwargs)

    # Training and inference

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As Keras'; floating inputs are taken in the model's dtype, whatever `floatx` is."""
        with _floatx_of(self):
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras', with inputs as in `fit`."""
        with _floatx_of(self):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras', with inputs as in `fit`."""
        with _floatx_of(self):
            return super().predict(*args, **kwargs)

    # Memory

    def gradient_checkpointing_enable(self) -> None:
        """From here on training keeps only what each encoder layer returns, and computes the rest again.

        The numbers stay the same but for rounding, dropout included; steps take about a third longer, and activations
        less memory. It is a setting of this object: what is saved does not keep it.
        """
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Training keeps all activations again, as it does by default."""
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether it is on."""
        return self.get_backbone().encoder.gradient_checkpointing

    def _set_gradient_checkpointing(self, value: bool) -> None:
        self.get_backbone().encoder.gradient_checkpointing = value
        self._forget_compiled_functions()

    # Export

    @property
    def input_signature(self) -> dict[str, Any]:
        """Names, dtypes and shapes of all inputs but `inputs_embeds`; batch, text length and box count are free.

        They are `tf.TensorSpec`s under TensorFlow, as upstream's, else `keras.InputSpec`s.
        """
        specs = {}
        for name in SIGNATURE_INPUTS:
            sizes = TABLE[name].shape(self.config, self.num_images)
            shape = tuple(size if isinstance(size, int) else None for size in sizes)
            specs[name] = _spec(shape, TABLE[name].dtype, name)
        return specs

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: list | None = None,
        **kwargs: Any,
    ) -> None:
        """Exports for inference, by default with `input_signature`: named inputs and outputs, dynamic sizes.

        Hidden states and attentions, of models whose config has them among the outputs, are one tensor for all layers,
        float[B, L, ...]; float[B, 2, L, ...] with two images.
        """
        signature = [self.input_signature] if input_signature is None else input_signature
        Exported(self).export(filepath, format=format, verbose=verbose, input_signature=signature, **kwargs)

    # Sizes

    def get_input_embeddings(self) -> keras.layers.Layer:
        """The word embedding layer; its `weight` is float[V, H]."""
        return self.get_backbone().embeddings.word_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> keras.layers.Layer:
        """Gives the vocabulary `new_num_tokens` pieces: old rows stay, new ones are initialised; None changes nothing.

        The bias of the masked-word head follows. Compile the model again afterwards.

        Args:
            new_num_tokens: the number of pieces, by default as many as there are.
            pad_to_multiple_of: round it up to a multiple of this.
        """
        layer = self.get_input_embeddings()
        new_num_tokens = padded_size(self.config.vocab_size, new_num_tokens, pad_to_multiple_of)
        if new_num_tokens is None:
            return layer
        _refuse_quantized(layer, "Resize")
        self.config.vocab_size = layer.input_dim = new_num_tokens
        resize(layer, "embeddings", new_num_tokens, truncated_normal(self.config))
        if layer.lora_enabled:
            resize(layer, "lora_embeddings_a", new_num_tokens, "zeros")
        if hasattr(self, "cls"):
            resize(self.cls.predictions, "bias", new_num_tokens, "zeros")
        self._forget_compiled_functions()
        return layer

    def get_qa_logit_layer(self) -> keras.layers.Dense | None:
        """The last dense layer of the answer head, or None where there is no answer head."""
        return self.answer_head.logit_fc_3 if hasattr(self, "answer_head") else None

    def resize_num_qa_labels(self, num_labels: int) -> keras.layers.Dense:
        """Gives the answer head `num_labels` answers: old ones stay, new ones are initialised.

        Compile the model again afterwards.
        """
        layer = self.get_qa_logit_layer()
        if layer is None:
            raise ValueError(f"{type(self).__name__} has no answers to resize.")
        num_labels = checked_size("num_labels", num_labels)
        _refuse_quantized(layer, "Resize")
        self.config.resize_answers(num_labels)
        layer.units = num_labels
        resize(layer, "kernel", num_labels, truncated_normal(self.config), axis=1)
        if layer.lora_enabled:
            resize(layer, "lora_kernel_b", num_labels, "zeros", axis=1)
        resize(layer, "bias", num_labels, "zeros")
        self._forget_compiled_functions()
        return layer

    def _forget_compiled_functions(self) -> None:
        self.train_function = self.test_function = self.predict_function = None


@contextmanager
def _floatx_of(model: keras.Model) -> Iterator[None]:
    """Has Keras round arrays, which it gives floatx before a model sees them, to no less than the model computes in."""
    before = keras.config.floatx()
    keras.config.set_floatx(score_dtype(model.variable_dtype))
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def resize(layer: keras.layers.Layer, attribute: str, size: int, fresh_initializer: Any, axis: int = 0) -> None:
    """Gives a variable of a layer `size` entries along `axis`: its first ones, and others from `fresh_initializer`."""

    def add(old: keras.Variable) -> keras.Variable:
        shape = list(old.shape)
        shape[axis] = size
        new = layer.add_weight(name=old.name, shape=shape, initializer=fresh_initializer, dtype=old.dtype)
        new.trainable = old.trainable
        kept = ops.split(ops.convert_to_tensor(old), [min(size, old.shape[axis])], axis=axis)[0]
        fresh = ops.split(ops.convert_to_tensor(new), [kept.shape[axis]], axis=axis)[1]
        new.assign(ops.concatenate([kept, fresh], axis=axis))
        return new

    replace_weight(layer, attribute, add)


def _refuse_quantized(layer: keras.layers.Layer, what: str) -> None:
    if is_integer(layer):
        raise ValueError(f"{layer.path} is quantized to {layer.quantization_mode}. {what} first, then quantize.")


def _spec(shape: tuple, dtype: str, name: str) -> Any:
    if keras.backend.backend() != "tensorflow":
        return keras.InputSpec(shape=shape, dtype=dtype, name=name)
    import tensorflow as tf

    return tf.TensorSpec(shape, dtype, name)
