"""A checkpoint's names and shapes against the table of names: what a model takes of it, its task and its config."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count

from conversion.names import (
    ALL_HEADS,
    SKIPPED,
    STACKS,
    Row,
    Shape,
    canonical,
    expand,
    fit_prefix,
    head_of,
    layer,
    rows,
    skip_reason,
)
from conversion.report import counted, grouped, some
from lxmert_tf.command_line import option
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES


class StrangeNames(ValueError):
    """Tensors do not fit a model since their names are not LXMERT's."""


@dataclass(frozen=True)
class Matched:
    """What a checkpoint gives a model.

    Args:
        loaded: rows it has, in the model's shape.
        missing: PyTorch names that stay initialised: heads it lacks and, if asked for, tensors of other shapes.
        unused: PyTorch names it has beyond the model's, each with the reason.
    """

    loaded: list[Row]
    missing: list[str]
    unused: dict[str, str]

    def summary(self) -> str:
        """One line: tensors loaded, missing, unused with the reason."""
        missing = f" ({', '.join(self.missing)})" if self.missing else ""
        unused = "; ".join(f"{some(names, 3)}: {reason}" for reason, names in grouped(self.unused).items())
        return (
            f"{counted(self.loaded, 'tensor')} loaded, {len(self.missing)} missing and initialised{missing}, "
            f"{len(self.unused)} unused{f' ({unused})' if unused else ''}"
        )


def match(
    shapes: Mapping[str, Shape],
    task: str,
    config: LxmertConfig,
    ignore_mismatched_sizes: bool = False,
    allow_missing: bool = False,
) -> Matched:
    """Compares a checkpoint with the table for `task` and `config`.

    Args:
        shapes: PyTorch names and shapes of the checkpoint.
        task: the model's task.
        config: the model's config.
        ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.
        allow_missing: let any tensor be missing, not only heads as a whole.

    Raises:
        ValueError: with every missing, unexpected and misshapen tensor. A head may be missing as a whole.
    """
    table = rows(config, task)
    wanted = {row.torch: row.shape(config) for row in table}
    given = {fit_prefix(name, task): tuple(shape) for name, shape in shapes.items()}
    parts = {None, *map(head_of, given)}
    holes = {name: wanted[name] for name in wanted if allow_missing and name not in given and head_of(name) in parts}
    is_of_pairs = [each == "visual-reasoning" for each in (task, find_task({**given, **holes}))]
    reasons = {name: _unused_reason(name, wanted, task, is_of_pairs[0] != is_of_pairs[1]) for name in sorted(given)}
    found = {name: shape for name, shape in given.items() if not reasons[name]}

    heads = {head_of(name) for name in found}
    absent = {name for name in wanted if name not in found}
    initialised = {name for name in absent if name in holes or (head_of(name) and head_of(name) not in heads)}
    misshapen = {name for name in wanted if name in found and found[name] != wanted[name]}
    problems = {
        "missing": [f"{name} {list(wanted[name])}" for name in sorted(absent - initialised)],
        "unexpected": [f"{name} {list(found[name])}" for name in sorted(found) if name not in wanted],
        "misshapen": [f"{name} {list(found[name])}, expected {list(wanted[name])}" for name in sorted(misshapen)],
    }
    if ignore_mismatched_sizes:
        problems["misshapen"] = []
    if any(problems.values()):
        unexpected = [name for name in sorted(found) if name not in wanted]
        strange = _strange_names(sorted(absent), unexpected, given)
        error = StrangeNames if strange else ValueError
        raise error(_mismatch(problems, task, strange or "check that its config is the checkpoint's own"))
    left = absent | misshapen
    return Matched(
        loaded=[row for row in table if row.torch not in left],
        missing=sorted(left),
        unused={name: reason for name, reason in reasons.items() if reason},
    )


def _unused_reason(name: str, wanted: Collection[str], task: str, other_head: bool) -> str | None:
    """Why a model leaves a tensor aside, or None."""
    if reason := skip_reason(name):
        return reason
    if other_head and head_of(name) == "answer_head":
        return "an answer head for one image does not fit pairs of images, nor the other way round"
    if name not in wanted and any(name == row.torch for block in ALL_HEADS for row in block):
        return f"{ARCHITECTURES[task]} of this config has no such head"
    return None


def _strange_names(absent: list[str], unexpected: list[str], given: Collection[str]) -> str:
    """What to do where tensors have names that no LXMERT has, however deep; "" where they have not."""
    known = {row.torch for row in _rows_of({fit_prefix(name, "qa") for name in given})}
    strange = [name for name in unexpected if fit_prefix(name, "qa") not in known]
    if any(".parametrizations." in name for name in strange):
        return "remove the parametrizations before saving the model, or convert the model itself"
    if any(".lora_" in name for name in strange):
        return "its LoRA factors are not merged: save the model after PEFT's merge_and_unload()"
    return f"its names are not LXMERT's{_nearest_to(absent[0], strange)}" if absent and strange else ""


def _nearest_to(name: str, names: Collection[str]) -> str:
    """The names that are most like one that is missing or, where none is like it, what there is."""
    near = nearest(name, names)
    if near or not names:
        return f": nearest to {name} {'are' if len(near) > 1 else 'is'} {some(near)}" if near else ""
    return f": of its {counted(names, 'name')} none is like it, such as {some(sorted(names), 3)}"


def _mismatch(problems: Mapping[str, list[str]], task: str, hint: str) -> str:
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in problems.items() if lines)
    if problems["misshapen"]:
        hint += option(", or leave misshapen ones initialised (from_pretrained takes ignore_mismatched_sizes=True)", "")
    lines = [f"  {kind}: {line}" for kind, lines in problems.items() for line in lines]
    return "\n".join([f"The tensors do not fit {ARCHITECTURES[task]}: {counts}; {hint}.", *lines])


# Where in a file an LXMERT is

LANDMARK = "encoder.visn_fc.visn_fc.weight"  # which every LXMERT has and BERT has not
ORIGINAL_ROOTS = ("lxrt_encoder.model.bert.", "bert.")


def find_prefixes(names: Collection[str], spelling: str) -> list[str]:
    """What the names of every LXMERT among these begin with, with the separator at its end: mostly [""].

    Args:
        names: all in a file, without wrappers.
        spelling: the field of `Row` they are spelled as: "torch", "tf" or "h5_path".
    """
    tail, full = (_landmark(spelling, bare) for bare in (True, False))
    separator = "." if spelling == "torch" else "/"
    roots = [full.removesuffix(tail), *(ORIGINAL_ROOTS if spelling == "torch" else ())]
    found: dict[str, None] = {}
    for name in sorted(names):
        if _ends_with(name, tail, separator):
            prefix = name.removesuffix(tail)
            root = next((root for root in roots if root and _ends_with(prefix, root, separator)), "")
            found[prefix.removesuffix(root)] = None
    return list(found)


def _landmark(spelling: str, bare: bool) -> str:
    ending = f".{LANDMARK}"
    return next(getattr(row, spelling) for row in expand({}, (), bare) if f".{row.torch}".endswith(ending))


def _ends_with(name: str, tail: str, separator: str) -> bool:
    return f"{separator}{name}".endswith(f"{separator}{tail}")


def inside(names: Collection[str], prefix: str, spelling: str) -> dict[str, str]:
    """The names of the LXMERT under a prefix: each in the file to the rest of it.

    Of PyTorch's those belong to it that the table of names has, and those in modules of which it has others: where
    `lxmert.` is, `classifier.weight` is somebody else's.
    """
    under = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    known = {fit_prefix(canonical(rest), "qa") for rest in under.values()}
    table = {row.torch for row in _rows_of(known)} & known
    if spelling != "torch" or not table:
        return under
    modules = {name.split(".")[0] for name in table}
    bare = not any(canonical(rest).startswith("lxmert.") for rest in under.values())

    def belongs(name: str) -> bool:
        full = fit_prefix(name, "qa")
        return full in table or name in SKIPPED or (full if bare else name).split(".")[0] in modules

    return {name: rest for name, rest in under.items() if belongs(canonical(rest))}


def is_whole(shapes: Collection[str]) -> bool:
    """Whether these PyTorch names have the whole backbone, however deep."""
    return not _lacking({fit_prefix(name, "qa") for name in shapes})


def nearest(name: str, names: Collection[str], most: int = 3) -> list[str]:
    """The names that are most like one, of at most some thousands."""
    return difflib.get_close_matches(name, list(names)[:2000], most, cutoff=0.4)


def _lacking(names: Collection[str]) -> list[str]:
    """What a backbone lacks that is as deep as these full names go."""
    depths = {stack: _depth(stack, names) for stack in STACKS}
    return [row.torch for row in expand(depths, (), bare=False) if row.torch not in names]


def _rows_of(names: Collection[str]) -> list[Row]:
    """The rows of a model with all heads that is as deep as these full names go."""
    return expand({stack: _depth(stack, names) for stack in STACKS}, ALL_HEADS, bare=False)


# What names and shapes show


def find_task(shapes: Mapping[str, Shape]) -> str:
    """The task of the model that tensors of these PyTorch names and shapes belong to."""
    heads = {name.split(".")[0] for name in shapes}
    if heads & {"cls", "obj_predict_head"}:
        return "pretraining"
    if "answer_head" not in heads:
        return "model"
    first = shapes.get("answer_head.logit_fc.0.weight", ())
    return "visual-reasoning" if len(first) == 2 and first[0] == first[1] else "qa"


def infer_config(shapes: Mapping[str, Shape]) -> LxmertConfig:
    """The config that tensors of these PyTorch names and shapes belong to.

    Shapes do not show the number of attention heads: 64 wide each is assumed, as in every published model.

    Raises:
        ValueError: the tensors are not those of an LXMERT model; the message names the first one missing.
    """
    task = find_task(shapes)
    shapes = {fit_prefix(name, "qa"): shape for name, shape in shapes.items()}
    if lacking := _lacking(shapes):
        raise ValueError(
            f"There is no tensor {lacking[0]}, so these are not the weights of an LXMERT model"
            f"{_nearest_to(lacking[0], set(shapes) - {row.torch for row in _rows_of(shapes)})}."
        )
    sizes = {name: values[-1] for name, values in _sizes_of(shapes).items()}
    hidden = sizes["hidden_size"]
    heads = {"num_attention_heads": hidden // 64 if hidden % 64 == 0 else 1}
    return LxmertConfig(**sizes, **heads, **_switches(task, shapes))


def contradictions(config: LxmertConfig, shapes: Mapping[str, Shape]) -> dict[str, tuple[int, int]]:
    """The sizes in which no tensor agrees with a config: field to the config's and to the tensors'."""
    sizes = _sizes_of(shapes)
    given = {name: getattr(config, name) for name in sizes}
    return {name: (given[name], values[-1]) for name, values in sizes.items() if given[name] not in values}


def _sizes_of(shapes: Mapping[str, Shape]) -> dict[str, list[int]]:
    """Config field to its value in every tensor that has it."""
    task = find_task(shapes)
    shapes = {fit_prefix(name, "qa"): shape for name, shape in shapes.items()}
    depths = {stack: _depth(stack, shapes) for stack in STACKS}
    sizes = {stack: [depth] for stack, depth in depths.items()}
    for row in expand(depths, () if task == "visual-reasoning" else ALL_HEADS, bare=False):
        for name, size in zip(row.sizes, shapes.get(row.torch, ()), strict=False):
            if isinstance(name, str) and "*" not in name:
                sizes.setdefault(name, []).append(size)
    return sizes


def _depth(stack: str, shapes: Collection[str]) -> int:
    return next(i for i in count() if not any(row.torch in shapes for row in layer(stack, i, bare=False)))


def _switches(task: str, shapes: Collection[str]) -> dict[str, bool]:
    """Which pretraining tasks a checkpoint has heads for; all of them where it is not of pretraining."""
    if task != "pretraining":
        return {}
    heads = {head_of(name) for name in shapes}
    visual = {
        f"visual_{loss}_loss": f"obj_predict_head.decoder_dict.{loss}.weight" in shapes
        for loss in ("obj", "attr", "feat")
    }
    switches = {"task_obj_predict": "obj_predict_head" in heads, "task_qa": "answer_head" in heads}
    return {**switches, **visual} if switches["task_obj_predict"] else switches
