"""Every public name, argument and output of upstream's LXMERT: runs where transformers 4 is installed.

python names.py            # is the list beside this file that of the installed classes, and has each name a row?
python names.py --write    # writes the list

It imports nothing of this project. The list has each name with its arguments; what is inherited has the name of the
class that defines it. One by one they are `LxmertModel`, `LxmertModel(config)`, `LxmertModelOutput.pooled_output`,
`LxmertModel.forward(input_ids)`, `PreTrainedModel.tie_weights`, `PreTrainedModel.from_pretrained(config)`.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIST = HERE / "names.json"
ROWS = HERE.parents[1] / "docs" / "from-tflxmert.yml"
PACKAGE = "transformers.models.lxmert"
MODULES = ("configuration_lxmert", "modeling_lxmert", "modeling_tf_lxmert", "tokenization_lxmert")
MODULES += ("tokenization_lxmert_fast",)
POPPED = re.compile(r"kwargs\.(?:pop|get)\(\s*\"(\w+)\"")  # arguments that no signature has


def main() -> int:
    """Lists and compares.

    Returns:
        0 if the list is that of the installed classes and each name has a row, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {LIST.name}")
    args = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    found = {name: names for cls in classes() for name, names in of_class(cls)}
    if args.write:
        lines = (f"{json.dumps(name)}: {json.dumps(names)}" for name, names in found.items())
        LIST.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    import yaml

    rows = [row for group in yaml.safe_load(ROWS.read_text("utf-8")).values() for row in group]
    flat, listed = set(one_by_one(found)), set(one_by_one(json.loads(LIST.read_text("utf-8"))))
    problems = [f"{name} is new or gone" for name in sorted(flat ^ listed)]
    problems += [f"{name} has no row" for name in without_row(flat, rows)]
    print(*problems, f"{len(flat)} names, {len(problems)} problems", sep="\n")
    return bool(problems)


def one_by_one(names: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Every name, and each of its arguments as `name(argument)`."""
    for name, given in names.items():
        yield name
        yield from (f"{name}({argument})" for argument in given)


def without_row(names: Iterable[str], rows: Iterable[Mapping]) -> list[str]:
    """The names that are in no row, where * stands for anything, and a name for its arguments, too."""
    patterns = [name for row in rows for name in names_of(row)]
    patterns += [f"{name}(*" for name in patterns if "(" not in name]
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns))


def names_of(row: Mapping) -> list[str]:
    """The names of a row, with that of their class."""
    return [f"{row['of']}.{name}" if "of" in row else name for name in row.get("names", ())]


def classes() -> Iterator[type]:
    """The public classes, and what models return."""
    for module in (importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES):
        own = [
            value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        yield from (value for value in own if value.__name__ in module.__all__ or dataclasses.is_dataclass(value))


def of_class(cls: type) -> Iterator[tuple[str, list[str]]]:
    """What the class and its bases in transformers define, with arguments; the fields of an output."""
    if dataclasses.is_dataclass(cls):
        yield cls.__name__, []
        yield from ((f"{cls.__name__}.{field.name}", []) for field in dataclasses.fields(cls))
        return
    yield cls.__name__, arguments(cls.__init__)
    seen = {"__init__"}
    for base in cls.__mro__:
        for name, value in vars(base).items() if base.__module__.startswith("transformers.") else ():
            if name not in seen and (not name.startswith("_") or name == "__call__"):
                seen.add(name)
                yield f"{base.__name__}.{name}", arguments(value)


def arguments(value) -> list[str]:
    """Of a function or method, without `self`, in its order; then those that it takes out of its `**kwargs`."""
    function = inspect.unwrap(getattr(value, "__func__", value))
    if not inspect.isfunction(function):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind not in kinds]
    popped = POPPED.findall(inspect.getsource(function))
    return [name for name in dict.fromkeys([*given, *popped]) if name not in ("self", "cls") and name[0] != "_"]


if __name__ == "__main__":
    sys.exit(main())
