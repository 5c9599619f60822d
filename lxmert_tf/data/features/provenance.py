"""How region features were extracted: what is recorded beside a TSV file, compared and carried on."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lxmert_tf.data.features.tsv import PROVENANCE
from lxmert_tf.files import read_json_as

RECORDED = ("extractor", "extraction")  # what a source says of how it was made


def read_provenance(path: str | os.PathLike) -> dict[str, Any]:
    """What is recorded beside a TSV file, in `FILE.tsv.json`; empty where there is none.

    Raises:
        ValueError: that file is damaged.
    """
    beside = Path(os.fspath(path) + PROVENANCE)
    if not beside.is_file():
        return {}
    made = read_json_as(beside, dict, "a TSV file's provenance")
    if not isinstance(made.get("extraction", {}), dict):
        raise ValueError(f"{beside}: extraction must be an object, got {json.dumps(made['extraction'])[:80]}.")
    return made


def sources_of(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sources of a file, each with what is recorded of its extraction."""
    made = {"extraction": provenance["extraction"]} if "extraction" in provenance else {}
    return [made | source for source in provenance.get("sources", [])]


def check_extracted_alike(sources: Sequence[tuple[str | os.PathLike, Mapping[str, Any]]]) -> None:
    """ValueError if the extractions of two sources differ in what features depend on.

    Args:
        sources: their paths, and what is recorded of each; those without an extraction are left out.
    """
    found = [(path, _options(source["extraction"])) for path, source in sources if "extraction" in source]
    for path, options in found[1:]:
        first, others = found[0]
        for name in others | options:
            one, other = (json.dumps(each.get(name)) for each in (others, options))
            if one != other:
                raise ValueError(
                    f"{os.fspath(first)} and {os.fspath(path)} were extracted with different options, {name} {one} "
                    f"and {other}; build a file of each."
                )


def common_record(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all sources say alike of how they were made, as of `RECORDED`."""
    made = {name: value for name, value in _common(sources).items() if name in RECORDED}
    if all("extraction" in source for source in sources):
        made["extraction"] = _common([source["extraction"] for source in sources])
    return made


def _common(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = records
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def _options(extraction: Mapping[str, Any]) -> dict[str, Any]:
    """What features depend on, by names for messages."""
    detector, pipeline = extraction.get("detector"), extraction.get("pipeline")
    return {
        "detector sha256": detector.get("sha256") if isinstance(detector, dict) else detector,
        **({f"pipeline {name}": value for name, value in pipeline.items()} if isinstance(pipeline, dict) else {}),
        "precision": extraction.get("precision"),
        "--boxes-from": bool(extraction.get("boxes_from")),
    }
