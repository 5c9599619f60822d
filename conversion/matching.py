"""A checkpoint's names and shapes against the table of names: what a model takes of it, its task and its config."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count

from conversion.names import ALL_HEADS, STACKS, Row, Shape, expand, fit_prefix, head_of, layer, rows, skip_reason
from conversion.report import counted, grouped, some
from lxmert_tf.command_line import option
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES


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
        raise ValueError(_mismatch(problems, task))
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


def _mismatch(problems: Mapping[str, list[str]], task: str) -> str:
    counts = ", ".join(f"{len(lines)} {kind}" for kind, lines in problems.items() if lines)
    hint = "check that its config is the checkpoint's own"
    if problems["misshapen"]:
        hint += option(", or leave misshapen ones initialised (from_pretrained takes ignore_mismatched_sizes=True)", "")
    lines = [f"  {kind}: {line}" for kind, lines in problems.items() for line in lines]
    return "\n".join([f"The tensors do not fit {ARCHITECTURES[task]}: {counts}; {hint}.", *lines])


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
    depths = {stack: _depth(stack, shapes) for stack in STACKS}
    for row in expand(depths, (), bare=False):
        if row.torch not in shapes:
            raise ValueError(f"There is no tensor {row.torch}, so these are not the weights of an LXMERT model.")
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
