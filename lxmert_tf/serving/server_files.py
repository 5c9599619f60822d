"""The server's files beside a SavedModel: batching parameters, models and versions, and how to run it."""

import os
import re
import string
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lxmert_tf.files import LOCK, write_text
from lxmert_tf.locks import locked

if TYPE_CHECKING:
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

BATCHING_FILE = "batching_params.pbtxt"
CONFIG_FILE = "models.config"
OVMS_FILE = "config.json"  # of OpenVINO Model Server
TEMPLATES = Path(__file__).parent / "templates"
SERVED_AT = "/models"  # where the templates put BASE inside the container


def write_batching(folder: Path, batch_sizes: list[int]) -> None:
    """Writes a version's batching parameters, read with --enable_per_model_batching_parameters.

    `pad_variable_length_inputs` lets texts and box counts of different length share a batch.
    """
    lines = [
        f"max_batch_size {{ value: {max(batch_sizes)} }}",
        "batch_timeout_micros { value: 2000 }",
        "max_enqueued_batches { value: 100 }",
        "num_batch_threads { value: 4 }",
        "pad_variable_length_inputs: true",
        *(f"allowed_batch_sizes: {size}" for size in sorted(batch_sizes)),
    ]
    write_text(folder / BATCHING_FILE, "\n".join(lines) + "\n")


def read_config(base: str | os.PathLike) -> "ModelServerConfig":
    """BASE/models.config as a ModelServerConfig, an empty one where there is no file.

    Raises:
        ValueError: TF Serving could not read it.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    path, config = Path(base) / CONFIG_FILE, model_server_config_pb2.ModelServerConfig()
    if path.is_file():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(f"Cannot read {path} as a model config file: {str(error).rstrip('.')}.") from error
    return config


@contextmanager
def locked_base(base: str | os.PathLike) -> Iterator[None]:
    """Makes other exports wait before they change what is in BASE."""
    with ExitStack() as stack:
        with suppress(OSError):  # a shared folder may not support locks
            stack.enter_context(locked(Path(base) / LOCK))
        yield


def update_config(base: str | os.PathLike, name: str, version: int, label: str) -> None:
    """Writes BASE/models.config with the model, `label` on `version`, and every labelled version served.

    The policy `all` of a model is kept, and so is everything else in the file.

    Raises:
        ValueError: there is a file that TF Serving could not read.
    """
    from google.protobuf import text_format

    config = read_config(base)
    models = config.model_config_list.config
    model = next((model for model in models if model.name == name), None)
    if model is None:
        model = models.add(name=name, base_path=f"{SERVED_AT}/{name}", model_platform="tensorflow")
    model.version_labels[label] = version
    policy = model.model_version_policy
    if policy.WhichOneof("policy_choice") != "all":
        policy.specific.versions[:] = sorted({version, *model.version_labels.values()})
    write_text(Path(base) / CONFIG_FILE, text_format.MessageToString(config))


def served(base: str | os.PathLike, name: str, existing: list[int]) -> list[int]:
    """The versions of a model that BASE/models.config serves.

    Raises:
        ValueError: TF Serving could not read the file, or the model is not in it.
    """
    models = {model.name: model for model in read_config(base).model_config_list.config}
    if name not in models:
        raise ValueError(f"{Path(base) / CONFIG_FILE} has no model {name}: add it, or export again.")
    policy = models[name].model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        return [version for version in existing if version in policy.specific.versions]
    return existing if choice == "all" else sorted(existing)[-max(policy.latest.num_versions, 1) :]


def check_model_name(name: str) -> None:
    """ValueError if a model's directory would have the name of one of the server's files."""
    if name in (CONFIG_FILE, *(template.name for template in TEMPLATES.iterdir())):
        raise ValueError(f"{name} is the name of a file beside the models' directories: give the model another name.")


def write_templates(base: str | os.PathLike, name: str, image_tag: str, frozen_weights: bool = False) -> list[Path]:
    """Writes those of Dockerfile, compose.yaml, kubernetes.yaml, ... that BASE lacks; returns them.

    Args:
        base, name: the server's folder of models, and the model that is asked whether it is ready.
        image_tag: of TF Serving's image.
        frozen_weights: whether oneDNN keeps the weights in its own layout, which it else makes in each request.
    """
    written = []
    values = {"name": name, "dns_name": _dns_name(name), "tag": image_tag, "frozen": int(frozen_weights)}
    for template in sorted(TEMPLATES.iterdir()):
        path = Path(base) / template.name
        if not path.exists():
            text = string.Template(template.read_text(encoding="utf-8"))
            write_text(path, text.substitute(values))
            written.append(path)
    return written


def _dns_name(name: str) -> str:
    """A valid Kubernetes service name: lower-case letters, digits and '-', a letter first and no '-' last."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return (plain if plain[0].isalpha() else f"model-{plain}")[:63].rstrip("-")
