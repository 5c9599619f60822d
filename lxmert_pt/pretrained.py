"""What the four models share: construction from a config, saving, loading, and changing sizes."""

import copy
import inspect
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from conversion.formats import weight_files
from conversion.models import loading_info, select
from conversion.names import rows
from conversion.source import open_source
from conversion.tensors import from_torch, to_torch
from conversion.writers import checkpoint_format, write_checkpoint
from lxmert_tf.configuration import CONFIG_NAME, SETTINGS, LxmertConfig, checked_size, padded_size
from lxmert_tf.head_masks import refuse_pruning
from lxmert_tf.hub import UPLOAD_OPTIONS, upload
from lxmert_tf.input_table import dummy_inputs
from lxmert_tf.model_card import write_model_card
from lxmert_tf.outputs import ModelOutput
from lxmert_tf.upstream_arguments import translate

_Model = TypeVar("_Model", bound="LxmertPreTrainedModel")
_Output = TypeVar("_Output", bound=ModelOutput)


class LxmertPreTrainedModel(nn.Module):
    """Base of the LXMERT models: construction from a config, saving, loading, and changing sizes.

    Attributes:
        task: what a checkpoint of the class holds: "model", "pretraining", "qa" or "visual-reasoning".
        answers: the output that holds the scores of what it answers, or None.
        num_images: images of each example; where there are several, the inputs of images have an axis for them.

    Source: upstream `LxmertPreTrainedModel`.
    """

    config_class = LxmertConfig
    base_model_prefix = "lxmert"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    task: str
    answers: str | None = None
    num_images = 1
    _source = ""  # of the weights: what `from_pretrained` was given
    answer_head: Any  # of those that answer
    cls: Any  # the heads of pretraining

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.config = copy.deepcopy(LxmertConfig.of(config))  # which resizing changes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model computes in."""
        return self.get_input_embeddings().weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.get_input_embeddings().weight.device

    @property
    def name_or_path(self) -> str:
        """The path or Hub id that the model was loaded from, or ""."""
        return self.config.name_or_path

    @property
    def num_qa_labels(self) -> int:
        """How many answers the config has."""
        return self.config.num_qa_labels

    @classmethod
    def can_generate(cls) -> bool:
        """False: LXMERT generates no text."""
        return False

    @property
    def base_model(self) -> Any:
        """Upstream's name for `get_backbone()`."""
        return self.get_backbone()

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """A small batch of the inputs that a call needs: 2 examples of 3 tokens and 2 boxes each."""
        arrays = dummy_inputs(self.config, self.num_images)
        return {name: torch.tensor(array, device=self.device) for name, array in arrays.items()}

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights hold.

        Args:
            only_trainable: count those that are trained.
            exclude_embeddings: leave out the tables of embeddings.
        """
        left_out = (
            {id(m.weight) for m in self.modules() if isinstance(m, nn.Embedding)} if exclude_embeddings else set()
        )
        return sum(
            weight.numel()
            for weight in self.parameters()
            if id(weight) not in left_out and (weight.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the weights and, unless `return_buffers` is False, the buffers."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    def prune_heads(self, heads_to_prune: Any) -> None:
        """Refused, as upstream does, with a NotImplementedError: `head_mask` switches heads off."""
        refuse_pruning()

    def get_backbone(self) -> Any:
        """The model of the encoders: this one, or the one that its heads stand on."""
        return getattr(self, "lxmert", self)

    # The call

    def switch(self, name: str, value: Any) -> Any:
        """A call's switch, or the config's where the call leaves it open."""
        return getattr(self.config, name) if value is None else value

    def format_output(self, output: _Output, return_dict: bool | None) -> _Output | tuple[Any, ...]:
        if return_dict is None:
            return_dict = self.config.return_dict and not self.config.torchscript
        return output if return_dict else output.to_tuple()

    @staticmethod
    def assemble_output(
        output_class: type[_Output],
        encoded: ModelOutput,
        losses: dict[str, torch.Tensor],
        **scores: Any,
    ) -> _Output:
        """A task's output: the sum of its losses, its scores, and the backbone's hidden states and attentions."""
        shared = {name: value for name, value in encoded.items() if name in output_class.fields}
        loss = sum(losses.values()) if losses else None
        return output_class(losses=losses, loss=loss, **scores, **shared)

    # Initialisation

    def init_weights(self, *modules: nn.Module) -> None:
        """Draws the weights of `modules`: truncated normal kernels and tables, zero biases, unit LayerNorm."""
        for module in modules:
            module.apply(self._init_weights)

    def post_init(self) -> None:
        """What a subclass calls at the end of its constructor: draws all weights, those of its own layers too."""
        self.init_weights(self)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            std = self.config.initializer_range
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()

    # Saving and loading

    @classmethod
    def from_pretrained(
        cls: type[_Model],
        pretrained_model_name_or_path: Any,
        dtype: torch.dtype | str | None = None,
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
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> Any:
        """A model in evaluation mode with the weights of a checkpoint of any format.

        Args:
            pretrained_model_name_or_path: directory, file, or Hub id such as "unc-nlp/lxmert-base-uncased"; or a model
                or state dict.
            dtype: of the weights, or its name, or "auto" for the checkpoint's; PyTorch's default, not the file's.
            revision, cache_dir, local_files_only, token, force_download, proxies: for the Hub, as
                `lxmert_tf.hub.fetch` takes them.
            config: in place of the checkpoint's own; ours or upstream's, or the path of a config.json.
            ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.
            subfolder: the folder of the directory or repository to look in.
            use_safetensors: read no files but model.safetensors (True), or none of those (False).
            prefix: what the names of its tensors begin with, in a checkpoint of more; by default it is found. "" is the
                model that is not inside another.
            output_loading_info: return `conversion.models.loading_info` as well.
            state_dict: weights in place of the checkpoint's, of which only the config is read.
            **kwargs: values to set in the config, such as `num_qa_labels=3` or `output_attentions=True`; and upstream's
                other arguments (see `lxmert_tf.upstream_arguments`).

        Returns:
            The model, or the model and a dict of what was loaded.

        Raises:
            FileNotFoundError: no such path or repository, or no checkpoint of that kind in it.
            TypeError: an unknown argument.
            ValueError: the checkpoint is damaged, or lacks tensors other than this model's heads.
        """
        own = (*SETTINGS, *inspect.signature(cls.from_pretrained).parameters)
        others = translate(f"{cls.__name__}.from_pretrained", kwargs, own)
        dtype, token = others.pop("dtype", dtype), others.pop("token", token)
        hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
        hub |= {"token": token, "force_download": force_download, "proxies": proxies, "subfolder": subfolder}
        source = pretrained_model_name_or_path
        if state_dict is not None:
            if config is None and source is not None:
                config = LxmertConfig.from_pretrained(source, **hub)
            source = state_dict
        checkpoint = open_source(source, config, prefix, use_safetensors=use_safetensors, **hub).with_settings(**others)
        model = cls(checkpoint.config).to(_dtype(checkpoint.dtype if dtype == "auto" else dtype))
        if isinstance(pretrained_model_name_or_path, str | os.PathLike):
            model.config.name_or_path = os.fspath(pretrained_model_name_or_path)
            model._source = model.config.name_or_path if state_dict is None else ""
        task = cls.task
        matched = select(checkpoint, task, model.config, ignore_mismatched_sizes)
        tensors = checkpoint.named_for(task)
        parameters = model.state_dict()
        for row in matched.loaded:
            parameters[row.torch].copy_(to_torch(tensors[row.torch]))
        model.eval()
        return (model, loading_info(checkpoint, matched, task, model.config)) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        format: str | None = None,
        max_shard_size: int | str | None = None,
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
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
            format: "hf-pt" (model.safetensors), "hf-pt-bin" (pytorch_model.bin), "keras" (model.weights.h5) or
                "hf-tf" (tf_model.h5). Default: "hf-pt", or as `safe_serialization` says.
            max_shard_size: bytes, or a text such as "5GB"; larger PyTorch checkpoints are split into several files.
            is_main_process: False to write nothing, in all processes of a training but one.
            state_dict: written in place of the model's own.
            push_to_hub: send what was written to the Hub.
            safe_serialization: True for "hf-pt", False for "hf-pt-bin".
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
        format = checkpoint_format(format, safe_serialization, default="hf-pt")
        if not is_main_process:
            return
        task = self.task
        state = self.state_dict() if state_dict is None else state_dict
        tensors = {row.torch: from_torch(state[row.torch]) for row in rows(self.config, task)}
        path = write_checkpoint(save_directory, tensors, self.config, task, format, max_shard_size)
        files = [CONFIG_NAME, path.name, *(file.name for file in weight_files(path))]
        if model_card:
            packages = ("torch",)
            card = write_model_card(save_directory, self.task, packages, self._source, tags=tags)
            files += [card.name] if card else []
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

    # Memory

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """From here on training keeps only what each encoder layer returns, and computes the rest again.

        The numbers stay the same, dropout included. It is a setting of this object: what is saved does not keep it.

        Args:
            gradient_checkpointing_kwargs: of `torch.utils.checkpoint.checkpoint`; default: `use_reentrant=False`.
        """
        options = dict(gradient_checkpointing_kwargs or {"use_reentrant": False})
        self.get_backbone().encoder.gradient_checkpointing = options

    def gradient_checkpointing_disable(self) -> None:
        """Training keeps all activations again, as it does by default."""
        self.get_backbone().encoder.gradient_checkpointing = None

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether it is on."""
        return self.get_backbone().encoder.gradient_checkpointing is not None

    # Sizes

    def tie_weights(self) -> None:
        """Ties the decoder of the masked word head to the word embeddings, where other code has put another table."""
        self.set_input_embeddings(self.get_input_embeddings())

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embedding table, weight float[V, H]."""
        return self.get_backbone().embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Puts another table in place of the word embeddings; the decoder of the masked word head follows.

        Args:
            value: weight float[V, H]; V becomes the config's `vocab_size`.

        Raises:
            ValueError: it is of another width than the model.
        """
        if value.embedding_dim != self.config.hidden_size:
            raise ValueError(f"value must be {self.config.hidden_size} wide, got {value.embedding_dim}.")
        self.get_backbone().embeddings.word_embeddings = value
        if hasattr(self, "cls"):
            self.cls.predictions.resize(value)
        self.config.vocab_size = value.num_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Embedding:
        """Gives the vocabulary `new_num_tokens` words: old rows stay, new ones are initialised; None changes nothing.

        The decoder and bias of the masked word head follow.

        Args:
            new_num_tokens: the number of words, by default as many as there are.
            pad_to_multiple_of: round it up to a multiple of this.

        Raises:
            TypeError, ValueError: `new_num_tokens` is not a positive integer.
        """
        old = self.get_input_embeddings()
        new_num_tokens = padded_size(self.config.vocab_size, new_num_tokens, pad_to_multiple_of)
        if new_num_tokens is None:
            return old
        new = nn.Embedding(new_num_tokens, old.embedding_dim, padding_idx=0, **_place(old.weight))
        self.init_weights(new)
        _copy_rows(old, new)
        self.set_input_embeddings(new)
        return new

    def get_output_embeddings(self) -> nn.Linear | None:
        """The layer that words are predicted with, tied to the word embeddings; None where there is no such head."""
        return self.cls.predictions.decoder if hasattr(self, "cls") else None

    def get_qa_logit_layer(self) -> nn.Linear | None:
        """The last dense layer of the answer head, or None where there is no answer head."""
        return self.answer_head.logit_fc[-1] if hasattr(self, "answer_head") else None

    def resize_num_qa_labels(self, num_labels: int) -> nn.Linear:
        """Gives the answer head `num_labels` answers: old ones stay, new ones are initialised.

        Raises:
            TypeError, ValueError: the model has no answer head, or `num_labels` is not a positive integer.
        """
        old = self.get_qa_logit_layer()
        if old is None:
            raise ValueError(f"{type(self).__name__} has no answer head to resize.")
        num_labels = checked_size("num_labels", num_labels)
        new = nn.Linear(old.in_features, num_labels, **_place(old.weight))
        self.init_weights(new)
        _copy_rows(old, new)
        self.answer_head.logit_fc[-1] = new
        self.config.resize_answers(num_labels)
        return new


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """A floating dtype or its name; None for PyTorch's default."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return torch.get_default_dtype()
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype must be a floating dtype of PyTorch or its name, or 'auto', got {dtype!r}.")
    return found


def _place(weight: torch.Tensor) -> dict[str, Any]:
    return {"device": weight.device, "dtype": weight.dtype}


@torch.no_grad()
def _copy_rows(old: nn.Module, new: nn.Module) -> None:
    """Copies the rows that two layers of different size share, and whether they are trained."""
    for name, source in old.named_parameters():
        target = new.get_parameter(name)
        rows = min(len(source), len(target))
        target[:rows] = source[:rows]
        target.requires_grad_(source.requires_grad)
