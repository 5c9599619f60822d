"""Readers of every checkpoint format; whatever the file, tensors have PyTorch names and layouts.

| format | files |
|---|---|
| hf-pt | model.safetensors, or shards with model.safetensors.index.json |
| hf-pt-bin | pytorch_model.bin, or shards with pytorch_model.bin.index.json |
| hf-tf | tf_model.h5, or model.safetensors with TensorFlow names, or shards of either with an index |
| keras | model.weights.h5, or shards with model.weights.json, or a `.keras` archive |
| original | `.pth` files of the original code |

The format is detected from what a file holds, not from its name. Reading is lazy and never runs code from a file.
"""

import json
import logging
import os
import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from conversion.compare import identical
from conversion.copies import merged
from conversion.detector.readers import is_caffemodel, read_array_pickle, read_caffemodel
from conversion.matching import Matched, StrangeNames, contradictions, find_task, infer_config, match
from conversion.names import Row, fit_prefix, rows, skip_reason
from conversion.naming import Named, named
from conversion.readers import Content, read_h5, read_pickle, read_safetensors, read_zip, reading
from conversion.report import counted, some
from conversion.tensors import DTYPES, Tensors
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import absent
from lxmert_tf.tasks import ARCHITECTURES

TIED = ("cls.predictions.decoder.weight", "lxmert.embeddings.word_embeddings.weight")
UNTIED = f"{TIED[0]} is not {TIED[1]}, as it must be in LXMERT; the latter is used for both"

# What a directory is searched for, first to last, and the format each is written in.
WEIGHT_FILES = {
    "model.safetensors": "hf-pt",
    "model.safetensors.index.json": "hf-pt",
    "model.weights.h5": "keras",
    "model.weights.json": "keras",
    "pytorch_model.bin": "hf-pt-bin",
    "pytorch_model.bin.index.json": "hf-pt-bin",
    "tf_model.h5": "hf-tf",
    "tf_model.h5.index.json": "hf-tf",
}
SUFFIXES = (".safetensors", ".h5", ".keras", ".bin", ".pth", ".pt", ".ckpt", ".pkl", ".caffemodel")
# What stands in a directory for weights that only another program can put together, and that program.
ELSEWHERE = {
    "zero_to_fp32.py": "those of DeepSpeed are in parts; join them with the zero_to_fp32.py that is there",
    ".metadata": "those of torch.distributed.checkpoint are in parts; join them with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`",
    "adapter_config.json": "it is a LoRA adapter; give the checkpoint of its model, and the adapter with --adapter",
}
# Checkpoints of other names; `model_00000.weights.h5` is a shard, and `rng_state.pth` the state of a training.
WEIGHTS_NAME = re.compile(r"(?!rng_state|\.).*(\.keras|\.pth|(?<!_\d{5})\.weights\.h5)")

INDEXES = (".index.json", ".weights.json")
TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of PyTorch's pickles outside archives; others are of arrays

SIZES = (
    "l_layers",
    "r_layers",
    "x_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "visual_feat_dim",
    "visual_pos_dim",
    "num_qa_labels",
    "num_object_labels",
    "num_attr_labels",
)

logger = logging.getLogger("lxmert_tf")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Args:
        path: the file read; the index file of a sharded checkpoint.
        format: "hf-pt", "hf-pt-bin", "hf-tf", "keras" or "original".
        tensors: by upstream's PyTorch names, in PyTorch layout; a bare backbone has no `lxmert.` prefix.
        config: from the config.json beside the file or in it, else inferred from the shapes.
        task: "model", "pretraining", "qa" or "visual-reasoning", as its heads show.
        config_file: where the config was read from, if it was.
        inferred: why the config is inferred from the shapes, with a guess for what they do not show; "" if it is not.
        notes: what else its user should know.
        outside: the other names in the file, each with the reason why it is left out.
        prefix: what all its names begin with in the file, besides wrappers; "" where it is the file's model itself.
    """

    path: Path
    format: str
    tensors: Tensors
    config: LxmertConfig
    task: str
    config_file: Path | None = None
    inferred: str = ""
    notes: tuple[str, ...] = ()
    outside: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""

    @property
    def class_name(self) -> str:
        """The PyTorch class of its model."""
        return ARCHITECTURES[self.task]

    @property
    def sizes(self) -> dict[str, int]:
        """Depths and widths, by config field."""
        return {name: getattr(self.config, name) for name in SIZES}

    def rows(self) -> list[Row]:
        """Every tensor that its model has."""
        return rows(self.config, self.task)

    def skip_reason(self, name: str) -> str | None:
        """Why a tensor is left out on purpose whatever the model, or None."""
        return skip_reason(name)

    @property
    def config_origin(self) -> str:
        """Where the config is from: "file", "given" or "inferred"."""
        return "inferred" if self.inferred else "file" if self.config_file else "given"

    @property
    def contradiction(self) -> str:
        """In which sizes the config is not the tensors' own, or ""."""
        return _contradiction(self.config_file or "the config", self.config, self.tensors.shapes)

    @property
    def dtype(self) -> str:
        """The dtype of its first floating tensor, "float32" where there is none."""
        names = (item.dtype.name for item in self.tensors.stored.values())
        return next((name for name in names if name in DTYPES), "float32")

    def with_settings(self, **settings: Any) -> "Checkpoint":
        """The same with a config in which these are set; names of answers go where their number changes."""
        if not settings:
            return self
        config = self.config.replace(**settings)
        if config.num_qa_labels != self.config.num_qa_labels and not {"id2label", "label2id"} & set(settings):
            config.resize_answers(config.num_qa_labels)
        inferred = "" if "num_attention_heads" in settings else self.inferred
        return replace(self, config=config, config_file=None, inferred=inferred)

    def named_for(self, task: str) -> Tensors:
        """The tensors under the names that models of `task` have for them."""
        return self.tensors.renamed(lambda name: fit_prefix(name, task))

    def match(
        self,
        task: str | None = None,
        config: LxmertConfig | None = None,
        ignore_mismatched_sizes: bool = False,
        allow_missing: bool = False,
    ) -> Matched:
        """What of it a model takes, by default one of its own task and config.

        Args:
            task, config: the model's.
            ignore_mismatched_sizes, allow_missing: as of `conversion.matching.match`.

        Raises:
            ValueError: as `conversion.matching.match`; the message begins with the path, and says where the config
                contradicts the tensors.
        """
        task, config = task or self.task, config or self.config
        try:
            matched = match(self.tensors.shapes, task, config, ignore_mismatched_sizes, allow_missing)
        except ValueError as error:
            head, *details = str(error).splitlines()
            if self.contradiction and not isinstance(error, StrangeNames):
                head = f"{head.removesuffix('.')}: {self.contradiction}."
            raise ValueError("\n".join([f"{self.path}: {head}", *details])) from None
        return replace(matched, unused={**matched.unused, **self.outside})


# Opening


def open_checkpoint(
    path: str | os.PathLike,
    config: LxmertConfig | str | os.PathLike | None = None,
    prefix: str | None = None,
    use_safetensors: bool | None = None,
    content: Content | None = None,
) -> Checkpoint:
    """Opens a checkpoint file, or the preferred one of a directory (see `WEIGHT_FILES`).

    The config.json of a directory is its checkpoint's; one that lies beside a single file may be another's, and is
    used only where it is an LXMERT config of the tensors' sizes. Which of several checkpoints in a directory is read,
    and where in a file of more than an LXMERT that was found, is logged, and among the notes.

    Args:
        path: a file or a directory.
        config: a config, ours or upstream's, or its JSON file or directory, in place of the checkpoint's own, which is
            not read then.
        prefix: what the names of the LXMERT's tensors begin with; by default it is found.
        use_safetensors: read no files of a directory but model.safetensors (True), or none of those (False).
        content: of the file, where it is read already.

    Raises:
        FileNotFoundError: there is no such path, no checkpoint in the directory, or no shard an index names.
        ValueError: the file is damaged, or holds no LXMERT weights, or several; the message names it.
    """
    source, path = Path(path), find_weights(Path(path), use_safetensors)
    format, found, own_config = read_file(path, prefix, content)
    beside, notes = path.parent / CONFIG_NAME, (*_other_checkpoints(source, path), *found.notes)
    for note in notes:
        logger.info(note, extra={"note": True})
    make = partial(checkpoint_of, path, format, found, notes=notes)
    if isinstance(config, str | os.PathLike):
        file = config_file(config)
        return make(LxmertConfig.from_json_file(file), file)
    if config is not None:
        return make(LxmertConfig.of(config))
    if own_config is not None:
        return make(own_config, path)
    if not beside.is_file():
        return make(None)
    if source.is_dir():
        return make(LxmertConfig.from_json_file(beside), beside)
    if reason := _reason_to_ignore(beside, found.tensors):
        return make(None, reason=reason)
    return make(LxmertConfig.from_json_file(beside), beside)


def config_file(path: str | os.PathLike) -> Path:
    """A config.json, or that of a directory."""
    return Path(path) / CONFIG_NAME if os.path.isdir(path) else Path(path)


def checkpoint_of(
    path: Path,
    format: str,
    found: Named,
    config: LxmertConfig | None,
    config_file: Path | None = None,
    reason: str = f"there is no {CONFIG_NAME}",
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    """A checkpoint of an LXMERT; without a config, one is inferred from its shapes, for the `reason` given."""
    tensors = found.tensors
    task = find_task(tensors.shapes)
    notes = (*notes, UNTIED) if _untied(tensors) else notes
    inferred = ""
    if config is None:
        with reading(path):
            config, inferred = infer_config(tensors.shapes), reason
    return Checkpoint(path, format, tensors, config, task, config_file, inferred, notes, found.outside, found.prefix)


def _reason_to_ignore(file: Path, tensors: Tensors) -> str:
    """Why the config beside a single file is not that file's, or ""."""
    try:
        config = LxmertConfig.from_json_file(file)
    except (TypeError, ValueError, OSError) as error:
        return f"{str(error).splitlines()[0].removesuffix('.')}; it is ignored"
    if "x_layers" not in (values := json.loads(file.read_text(encoding="utf-8"))) and "model_type" not in values:
        return f"{file} is not an LXMERT config and is ignored"
    contradiction = _contradiction(file, config, tensors.shapes)
    return contradiction and f"{contradiction}; it is ignored"


def _contradiction(source: Path | str, config: LxmertConfig, shapes: Mapping[str, Any]) -> str:
    sizes = [f"{name}={given}, the tensors {found}" for name, (given, found) in contradictions(config, shapes).items()]
    return f"{source} says {some(sizes, 2)}" if sizes else ""


def _other_checkpoints(source: Path, path: Path) -> tuple[str, ...]:
    """A note if a directory holds other checkpoints than the one that is read."""
    if not source.is_dir():
        return ()
    files = sorted(file.name for file in source.iterdir() if file.is_file() and file.name != path.name)
    found = [name for name in WEIGHT_FILES if name in files]
    found += [name for name in files if name not in found and WEIGHTS_NAME.fullmatch(name)]
    return (f"{source} also holds {some(found)}; {path.name} is used",) if found else ()


def _untied(tensors: Tensors) -> bool:
    """Whether a decoder has weights of its own, though LXMERT ties it to the word embeddings."""
    full = tensors.renamed(lambda name: fit_prefix(name, "qa"))
    return all(name in full for name in TIED) and not identical(full[TIED[0]], full[TIED[1]])


def is_safetensors(name: str) -> bool:
    """Whether a file of this name is in the format of the safetensors library, or an index of such files."""
    return ".safetensors" in name


def find_weights(path: Path, use_safetensors: bool | None = None) -> Path:
    """`path` itself if it is a file, else the checkpoint in that directory.

    Args:
        path: a file or a directory.
        use_safetensors: as of `open_checkpoint`.

    Raises:
        FileNotFoundError: there is none, or there are several of unknown names.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(absent(path))
    if not path.is_dir():
        raise ValueError(f"{path} exists but is not a regular file.")
    names = [name for name in WEIGHT_FILES if use_safetensors in (None, is_safetensors(name))]
    for name in names:
        if (path / name).is_file():
            return path / name
    if why := next((why for name, why in ELSEWHERE.items() if (path / name).is_file()), None):
        raise FileNotFoundError(f"{path} holds no weights that can be read as they are: {why}.")
    # Hidden files are not weights: a run that was killed leaves some that look whole.
    files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    others = sorted(
        file
        for file in files
        if (file.suffix in SUFFIXES or file.name.endswith(INDEXES))
        and use_safetensors in (None, is_safetensors(file.name))
    )
    indexes = [file for file in others if file.name.endswith(INDEXES)]
    others = indexes if len(indexes) == 1 else others
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(file.name for file in others)}; name one of them" if others else "found none"
    raise FileNotFoundError(f"{path} must hold one of {', '.join(names)} or a single other checkpoint, {found}.")


def read_file(
    path: Path, prefix: str | None = None, content: Content | None = None
) -> tuple[str, Named, LxmertConfig | None]:
    """The format, the LXMERT in the file, and its config if that is in the file itself."""
    with reading(path):
        content = content or read_content(path, index_allowed=True)
        found = named(content.stored, content.spelling, prefix)
    format = "original" if found.is_original and content.format == "hf-pt-bin" else content.format
    return format, found, content.config


def read_content(path: Path, index_allowed: bool = False) -> Content:
    """What is in a file, or in the files of an index; the format is told by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(40)
    if start[4:9] == b"\0\0\0\0{":  # first: the length of a header may look like the start of another format
        return read_safetensors(path)
    if start.startswith(b"PK"):
        return read_zip(path)
    if start.startswith(b"\x89HDF"):
        return read_h5(path)
    if start.startswith(b"\x80"):
        return read_pickle(path) if TORCH_MAGIC in start else read_array_pickle(path)
    if start.startswith(b"{"):
        if not index_allowed:
            raise ValueError("it is an index, named in the weight_map of an index, which must name files with tensors")
        return _read_index(path)
    if start and is_caffemodel(path):
        return read_caffemodel(path)
    raise ValueError(_unknown_format(start))


def _unknown_format(start: bytes) -> str:
    """What a file that starts like this may be instead, and what to do."""
    if not start:
        return "it is empty; download or copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page, not a checkpoint; download the file itself, not the page that shows it"
    return "it is of no known format; expected safetensors, HDF5, a PyTorch pickle, .keras or an index in JSON"


# Sharded checkpoints


def _read_index(path: Path) -> Content:
    """The tensors of an index, from names to the files beside it that hold them."""
    index = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        if isinstance(index, dict) and "model_type" in index:
            raise ValueError("it is a config, not a checkpoint; give the weights beside it, or their directory")
        raise ValueError("it has no weight_map from tensors to files")
    contents = {}
    for name in _files(path, index["weight_map"]):
        with reading(path.parent / name):
            contents[name] = read_content(path.parent / name)
    kinds = {(content.format, content.spelling) for content in contents.values()}
    if len(kinds) != 1:
        formats = ", ".join(sorted(format for format, _ in kinds)) or "none"
        raise ValueError(f"its files must all be of one format, got {formats}")
    [(format, spelling)] = kinds
    names = {name for content in contents.values() for name in content.stored}
    lost = sorted(name for name in index["weight_map"] if not _holds(name, spelling, names))
    if lost:
        raise ValueError(f"its files lack {counted(lost, 'tensor')} of its weight_map, first {lost[0]}")
    everything = (
        (name, f"{name} in {file}", item) for file, content in contents.items() for name, item in content.stored.items()
    )
    return Content(format, spelling, merged(everything))


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of an opened checkpoint: `path` itself, or those that it names as an index."""
    if not path.name.endswith(INDEXES):
        return [path]
    return [path.parent / name for name in _files(path, json.loads(path.read_text(encoding="utf-8"))["weight_map"])]


def _files(path: Path, weight_map: dict[str, Any]) -> list[str]:
    """The files that an index names, each once. Keras gives a list of them for each layer."""
    files = set()
    for value in weight_map.values():
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0") or len(name) > 255:
                raise ValueError(f"its weight_map must name files beside it, got {reprlib.repr(name)}")
            files.add(name)
    for name in sorted(files):
        if not (path.parent / name).is_file():
            raise FileNotFoundError(f"{path} names the file {name}, which is not beside it.")
    return sorted(files)


def _holds(name: str, spelling: str, names: Collection[str]) -> bool:
    """Whether an index's name is that of a tensor: TensorFlow's has the root model's before it, Keras' is a layer's."""
    if spelling == "h5_path":
        return any(tensor.startswith(f"{name.strip('/')}/") for tensor in names)
    return (name.partition("/")[2] if spelling == "tf" else name) in names
