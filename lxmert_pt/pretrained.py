"""Loading and saving of the PyTorch models, by the same table and formats as the Keras ones."""

import os

import torch

from conversion.models import select, task_of_model
from conversion.names import rows
from conversion.source import open_source
from conversion.tensors import from_torch, to_torch
from conversion.writers import write_checkpoint
from lxmert_tf.configuration import LxmertConfig


class PretrainedMixin:
    """`from_pretrained` and `save_pretrained` of a model with a `config`."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        config: LxmertConfig | None = None,
        ignore_mismatched_sizes: bool = False,
    ):
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
        task = task_of_model(model)
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
        task = task_of_model(self)
        state = self.state_dict()
        tensors = {row.torch: from_torch(state[row.torch]) for row in rows(self.config, task)}
        write_checkpoint(directory, tensors, self.config, task, format, max_shard_size)
