"""The model that an export serves: its class and config from the checkpoint, its tokenizer and answers beside it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conversion.formats import weight_files
from conversion.source import open_source
from lxmert_tf.files import sha256
from lxmert_tf.tasks import ARCHITECTURES, keras_class

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Source:
    """A checkpoint, loaded.

    Attributes:
        model: of the class that the checkpoint is of, in the precision asked for.
        directory: where its tokenizer and answers are.
        digest: SHA-256 of its weight files.
        format: such as "hf-pt".
    """

    model: "keras.Model"
    directory: Path
    digest: str
    format: str


def load(source: str | os.PathLike, precision: str = "float32", config: str | os.PathLike | None = None) -> Source:
    """Loads a checkpoint of any format as a model to serve.

    Args:
        source: directory, file or Hub id.
        precision: "float32", "bfloat16" or "float16", of weights and computation.
        config: config.json in place of the checkpoint's own.

    Raises:
        FileNotFoundError: there is no such path or repository.
        ValueError: it is damaged, a detector's, or lacks a head, which would be served untrained.
    """
    import lxmert_tf

    own = None if config is None else lxmert_tf.LxmertConfig.from_json_file(config)
    checkpoint = open_source(source, own)
    if checkpoint.task not in ARCHITECTURES:
        raise ValueError(f"{checkpoint.path} holds a {checkpoint.task}, not an LXMERT model; give one of a model.")
    model = getattr(lxmert_tf, keras_class(checkpoint.task)).from_pretrained(checkpoint, dtype=precision)
    missing = checkpoint.match().missing
    untrained = sorted(name for name in missing if not name.startswith("obj_predict_head"))
    if untrained:
        raise ValueError(
            f"{source} has no weights for {', '.join(untrained[:3])}, which would be served untrained: train that "
            "head, or switch it off in config.json."
        )
    return Source(model, checkpoint.path.parent, sha256(*weight_files(checkpoint.path)), checkpoint.format)
