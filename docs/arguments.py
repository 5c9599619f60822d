"""An extension of griffe, which reads the docstrings: of "a, b: what both are" it makes an entry for each argument.

Each has then its own type and default, from the signature.
"""

import re

import griffe

ENTRY = re.compile(r"^    (?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<what>.*(?:\n {5,}.*)*)", re.MULTILINE)


def one_by_one(docstring: str) -> str:
    """The docstring with an entry for each argument."""

    def apart(entry: re.Match) -> str:
        return "\n".join(f"    {name}: {entry['what']}" for name in entry["names"].split(", "))

    head, args, rest = docstring.partition("Args:\n")
    section, end, others = rest.partition("\n\n")
    return head + args + ENTRY.sub(apart, section) + end + others


class Arguments(griffe.Extension):
    """Of every docstring; a config's `__init__`, which takes `**values`, has its fields as arguments."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = one_by_one(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **kwargs: object) -> None:
        init = cls.members.get("__init__")
        if isinstance(init, griffe.Function) and [each.name for each in init.parameters] == ["self", "values"]:
            rest = init.parameters["values"]
            fields = [each for each in cls.attributes.values() if each.annotation and each.value is not None]
            arguments = [
                griffe.Parameter(
                    each.name, annotation=each.annotation, kind=griffe.ParameterKind.keyword_only, default=each.value
                )
                for each in fields
            ]
            init.parameters = griffe.Parameters(init.parameters["self"], *arguments, rest)
