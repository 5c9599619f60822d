"""`lxmert-tf export`: a checkpoint as a model that TensorFlow Serving loads."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from lxmert_tf.cli.detector_options import NO_CHANGES, add_detector_arguments, detector_settings
from lxmert_tf.command_line import exit_on_sigterm, quiet_start
from lxmert_tf.serving.precision import MAX_LOSS, PrecisionError, check_limit, choose

NAME = "export"
HELP = "write a SavedModel with everything TensorFlow Serving needs beside it"
EPILOG = """\
BASE/NAME/VERSION holds the SavedModel with its signatures, warm-up requests, batching parameters and metadata, and
BASE the server's models.config with a Dockerfile, a compose file and a Kubernetes manifest to run it. VERSION is the
next free integer; it appears whole or not at all. --format openvino, onnx and litert write for other runtimes, which
take token ids: docs/runtimes.md.

The signatures are serving_default, and for models that answer questions encode_image and answer_encoded (an image once,
any number of questions); --text adds answer_text, which takes questions as strings. Each exists a second time without
masks, as NAME_unmasked. --detector adds detect and answer_image, which take the bytes of JPEG and PNG files, and brings
--text. More in docs/serving.md.

examples:
  lxmert-tf export checkpoint models --name vqa --text --check
  lxmert-tf export unc-nlp/lxmert-vqa-uncased models --name vqa --text --labels trainval_label2ans.json
  lxmert-tf export checkpoint models --name vqa --detector frcnn --check
  lxmert-tf export checkpoint models --name vqa --precision bfloat16 --label canary
  lxmert-tf export checkpoint models --name vqa --format openvino --precision int8 --data valid.json --features valid.h5
"""

# What has an effect with other runtimes than TensorFlow Serving.
RUNTIME_OPTIONS: tuple[str, ...] = (
    "name",
    "check",
    "check_only",
    "precision",
    "labels",
    "top_k",
    "probabilities",
    "batch_sizes",
)
RUNTIME_OPTIONS += ("version", "config", "format", "compare", "data", "features", "max_loss")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint of any format: directory, file or Hub id")
    parser.add_argument("base", metavar="BASE", help="the server's folder of models")
    parser.add_argument("--name", help="the model's name on the server")
    parser.add_argument(
        "--format",
        choices=["saved_model", "openvino", "onnx", "litert"],
        default="saved_model",
        help="for TensorFlow Serving, OpenVINO Model Server, Triton or LiteRT (default: %(default)s)",
    )
    parser.add_argument("--text", action="store_true", help="add signatures that take questions as strings")
    add_detector_arguments(parser, required=False)
    parser.add_argument("--check", action="store_true", help="then check every version: replay warm-up, compare")
    parser.add_argument("--check-only", action="store_true", help="check existing versions, export nothing")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "float16", "int8", "auto"],
        default="float32",
        help="of products, of what the format has; auto: what this processor is fastest with (default: %(default)s)",
    )
    parser.add_argument("--compare", action="store_true", help="print what it costs beside the checkpoint in float32")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FILE", help="annotations (json) to compare accuracy on"
    )
    parser.add_argument("--features", metavar="FILE", help="region features, of the images of --data; for int8, too")
    parser.add_argument(
        "--max-loss",
        type=float,
        default=MAX_LOSS,
        metavar="POINTS",
        help="accuracy that reduced precision may lose on --data (default: %(default)s)",
    )
    parser.add_argument(
        "--outputs",
        default="",
        metavar="LIST",
        help="more outputs of serving_default: attentions or all_attentions, hidden_states",
    )
    parser.add_argument("--labels", metavar="FILE", help="JSON list of answers; default: the model directory's")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="answers per question (default: %(default)s)")
    parser.add_argument(
        "--probabilities", choices=["sigmoid", "softmax"], help="how logits become probabilities; default: sigmoid"
    )
    parser.add_argument(
        "--batch-sizes", default="1,2,4,8,16,32", metavar="LIST", help="of batches on the server (default: %(default)s)"
    )
    parser.add_argument("--version", type=int, metavar="N", help="version number; default: the next free one")
    parser.add_argument("--label", default="stable", help="version label put on it (default: %(default)s)")
    parser.add_argument("--config", metavar="FILE", help="config.json in place of the checkpoint's")


def run(args: argparse.Namespace) -> int:
    if args.format != "saved_model":
        _reject_other_options(args, f"--format {args.format}", RUNTIME_OPTIONS)
    elif args.precision == "int8":
        raise ValueError("--precision int8 is for --format openvino, onnx or litert: a SavedModel has none.")
    elif args.check_only:
        _reject_other_options(args, "--check-only", ("name", "format", "check", "check_only", "config", "detector"))
    elif args.detector is None and detector_settings(args) != NO_CHANGES:
        raise ValueError("The pipeline and its numbers have no effect without --detector: give the detector, too.")
    if not (args.compare or args.precision != "float32" or args.check_only):
        for option in ("data", "features"):
            if getattr(args, option):
                raise ValueError(f"--{option} has no effect without --compare or a reduced --precision: add one.")
    check_limit(args.max_loss, args.data, args.features)
    if args.max_loss != MAX_LOSS and not args.data:
        raise ValueError("--max-loss has no effect without --data, on which accuracy is measured: give it, too.")
    _start_tensorflow()
    with exit_on_sigterm():
        return _run(args)


def _reject_other_options(args: argparse.Namespace, what: str, allowed: tuple[str, ...]) -> None:
    """ValueError for an option that has no effect with `what`."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for option, default in vars(parser.parse_args([args.model, args.base])).items():
        if option not in allowed and getattr(args, option) != default:
            raise ValueError(f"--{option.replace('_', '-')} has no effect with {what}: leave one of them out.")


def _start_tensorflow() -> None:
    """Imports TensorFlow without its messages at start-up."""
    with quiet_start():
        import tensorflow as tf

        tf.zeros(())  # the first tensor looks for devices
    tf.get_logger().setLevel(logging.WARNING)


def _run(args: argparse.Namespace) -> int:
    if not args.name:
        raise ValueError("Give the model's name on the server (--name).")
    if args.precision != "auto" or args.check_only:
        return _export_and_check(args)
    args.precision, reason = choose(args.format, calibrated=bool(args.features))
    args.compare = args.compare or bool(args.data)
    print(f"Exporting {args.precision}: {reason}.")
    try:
        return _export_and_check(args)
    except PrecisionError as error:
        print(f"{error} Exporting float32.")
        args.precision = "float32"
        return _export_and_check(args)


def _export_and_check(args: argparse.Namespace) -> int:
    if args.format != "saved_model":
        return _run_for_runtime(args)
    if not args.check_only:
        from lxmert_tf.serving.export import export

        written = export(
            args.model,
            args.base,
            args.name,
            text=args.text,
            **_shared_options(args),
            outputs=_items(args.outputs),
            label=args.label,
            detector=args.detector,
            pipeline=detector_settings(args),
        )
        print(written)
        _print_costs(written)
        _print_notes(written, args.top_k)
    if not (args.check or args.check_only):
        return 0
    from lxmert_tf.serving.check import check_model

    sound = check_model(args.base, args.name, args.model, report=print, config=args.config, detector=args.detector)
    return 0 if sound else 1


def _run_for_runtime(args: argparse.Namespace) -> int:
    """As `_run`, for another runtime than TensorFlow Serving."""
    if not args.check_only:
        from lxmert_tf.serving.runtimes.export import export

        written = export(
            args.model,
            args.base,
            args.name,
            args.format,
            **_shared_options(args),
        )
        print(written)
        _print_costs(written)
    if not (args.check or args.check_only):
        return 0
    from lxmert_tf.serving.runtimes.check import check_model

    return 0 if check_model(args.base, args.name, args.format, args.model, report=print, config=args.config) else 1


def _shared_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that both exports take."""
    named = ("precision", "labels", "top_k", "probabilities", "version", "config")
    costs = ("compare", "data", "features", "max_loss")
    shared = {name: getattr(args, name) for name in named + costs}
    return {**shared, "batch_sizes": _integers("--batch-sizes", args.batch_sizes)}


def _print_costs(version: Path) -> None:
    """Prints what an export costs beside the checkpoint in float32, and where it is not what was asked for."""
    from lxmert_tf.serving.comparison import describe
    from lxmert_tf.serving.metadata import read_metadata

    metadata = read_metadata(version)
    if metadata["comparison"]:
        print(f"{metadata['precision']} {describe(metadata['comparison'])}")
    if metadata.get("kept_in_float32"):
        print(f"In float32, for the accuracy: {', '.join(metadata['kept_in_float32'])}.")
    if metadata["precision"] == "bfloat16" and metadata.get("computed_in") == "float32":
        print(
            f"This processor has no bfloat16 products, and computed in {metadata['computed_in']}: what bfloat16 costs "
            "was not measured.",
            file=sys.stderr,
        )


def _print_notes(version: Path, top_k: int) -> None:
    """Prints a note if a model returns ids without answers, or fewer answers than asked for."""
    from lxmert_tf.serving.metadata import read_metadata

    outputs = read_metadata(version)["signatures"]["serving_default"]["outputs"]
    if "top_ids" not in outputs:
        return
    if "top_answers" not in outputs:
        print(
            "The model directory does not name the answers: only their ids are returned (--labels FILE names them).",
            file=sys.stderr,
        )
    answers = outputs["top_ids"]["shape"][-1]
    if answers < top_k:
        print(f"--top-k {top_k}: the model has only {answers} answers, and returns all of them.", file=sys.stderr)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(item) for item in _items(text)]
    except ValueError:
        raise ValueError(f"{option} must be integers separated by commas, got {text!r}.") from None
