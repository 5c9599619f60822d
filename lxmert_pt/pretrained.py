"""What the four models share: construction from a config, saving, loading, and changing sizes."""

import copy
import os
from typing import Any, TypeVar

import torch
from torch import nn

from conversion.models import select
from conversion.names import rows
from conversion.source import open_source
from conversion.tensors import from_torch, to_torch
from conversion.writers import write_checkpoint
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.outputs import ModelOutput

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

    task: str
    answers: str | None = None
    num_images = 1
    answer_head: Any  # of those that answer
    cls: Any  # the heads of pretraining

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.config = copy.deepcopy(config)  # which resizing changes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model computes in."""
        return self.get_input_embeddings().weight.dtype

    def get_backbone(self) -> Any:
        """The model of the encoders: this one, or the one that its heads stand on."""
        return getattr(self, "lxmert", self)

    # The call

    def switch(self, name: str, value: bool | None) -> bool:
        """A call's switch, or the config's where the call leaves it open."""
        return getattr(self.config, name) if value is None else value

    def format_output(self, output: _Output, return_dict: bool | None) -> _Output | tuple[Any, ...]:
        return output if self.switch("return_dict", return_dict) else output.to_tuple()

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
            module.apply(self._init_module)

    def _init_module(self, module: nn.Module) -> None:
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
        source: Any,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        config: LxmertConfig | None = None,
        ignore_mismatched_sizes: bool = False,
    ) -> _Model:
        """A model in evaluation mode with the weights of a checkpoint of any format.

        Args:
            source: directory, file, or Hub id such as "unc-nlp/lxmert-base-uncased"; or a model or state dict.
            dtype: of the weights; PyTorch's default, not the file's.
            revision, cache_dir, local_files_only, token: for the Hub.
            config: in place of the checkpoint's own.
            ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.

        Raises:
            FileNotFoundError: no such path or repository.
            ValueError: the checkpoint is damaged, or lacks tensors other than this model's heads.
        """
        checkpoint = open_source(
            source, config, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        model = cls(checkpoint.config).to(dtype or torch.get_default_dtype())
        task = cls.task
        matched = select(checkpoint, task, model.config, ignore_mismatched_sizes)
        tensors = checkpoint.named_for(task)
        parameters = model.state_dict()
        for row in matched.loaded:
            parameters[row.torch].copy_(to_torch(tensors[row.torch]))
        return model.eval()

    def save_pretrained(
        self, directory: str | os.PathLike, format: str = "hf-pt", max_shard_size: int | None = None
    ) -> None:
        """Writes config.json and the weights.

        Args:
            directory: made if missing.
            format: "hf-pt" (model.safetensors), "hf-pt-bin" (pytorch_model.bin), "keras" (model.weights.h5) or
                "hf-tf" (tf_model.h5).
            max_shard_size: bytes; larger PyTorch checkpoints are split into several files.
        """
        task = self.task
        state = self.state_dict()
        tensors = {row.torch: from_torch(state[row.torch]) for row in rows(self.config, task)}
        write_checkpoint(directory, tensors, self.config, task, format, max_shard_size)

    # Sizes

    def get_input_embeddings(self) -> nn.Embedding:
        """The word embedding table, weight float[V, H]."""
        return self.get_backbone().embeddings.word_embeddings

    def resize_token_embeddings(self, new_num_tokens: int) -> nn.Embedding:
        """Gives the vocabulary `new_num_tokens` words: old rows stay, new ones are initialised.

        The decoder and bias of the masked word head follow.

        Raises:
            ValueError: `new_num_tokens` is not a positive integer.
        """
        old = self.get_input_embeddings()
        _check_size("new_num_tokens", new_num_tokens)
        new = nn.Embedding(new_num_tokens, old.embedding_dim, padding_idx=0, **_place(old.weight))
        self.init_weights(new)
        _copy_rows(old, new)
        self.get_backbone().embeddings.word_embeddings = new
        if hasattr(self, "cls"):
            self.cls.predictions.resize(new)
        self.config.vocab_size = new_num_tokens
        return new

    def get_qa_logit_layer(self) -> nn.Linear | None:
        """The last dense layer of the answer head, or None where there is no answer head."""
        return self.answer_head.logit_fc[-1] if hasattr(self, "answer_head") else None

    def resize_num_qa_labels(self, num_labels: int) -> nn.Linear:
        """Gives the answer head `num_labels` answers: old ones stay, new ones are initialised.

        Raises:
            ValueError: the model has no answer head, or `num_labels` is not a positive integer.
        """
        old = self.get_qa_logit_layer()
        if old is None:
            raise ValueError(f"{type(self).__name__} has no answer head to resize.")
        _check_size("num_labels", num_labels)
        new = nn.Linear(old.in_features, num_labels, **_place(old.weight))
        self.init_weights(new)
        _copy_rows(old, new)
        self.answer_head.logit_fc[-1] = new
        self.config.resize_answers(num_labels)
        return new


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


def _check_size(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
