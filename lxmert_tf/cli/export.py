"""`lxmert-tf export`: a checkpoint as a model that TensorFlow Serving loads."""

import argparse
import logging
import sys
from pathlib import Path

from lxmert_tf.cli.detector_options import NO_CHANGES, add_detector_arguments, detector_settings
from lxmert_tf.command_line import exit_on_sigterm, quiet_start

NAME = "export"
HELP = "write a SavedModel with everything TensorFlow Serving needs beside it"
EPILOG = """\
BASE/NAME/VERSION holds the SavedModel with its signatures, warm-up requests, batching parameters and metadata, and
BASE the server's models.config with a Dockerfile, a compose file and a Kubernetes manifest to run it. VERSION is the
next free integer; it appears whole or not at all.

The signatures are serving_default, and for models that answer questions encode_image and answer_encoded (an image once,
any number of questions); --text adds answer_text, which takes questions as strings. Each exists a second time without
masks, as NAME_unmasked. --detector adds detect and answer_image, which take the bytes of JPEG and PNG files, and brings
--text. More in docs/serving.md.

examples:
  lxmert-tf export checkpoint models --name vqa --text --check
  lxmert-tf export unc-nlp/lxmert-vqa-uncased models --name vqa --text --labels trainval_label2ans.json
  lxmert-tf export checkpoint models --name vqa --detector frcnn --check
  lxmert-tf export checkpoint models --name vqa --precision bfloat16 --label canary
  lxmert-tf export checkpoint vqa.tflite --format litert --sizes 1,20,36
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="checkpoint of any format: directory, file or Hub id")
    parser.add_argument("base", metavar="BASE", help="the server's folder of models; with --format, the file")
    parser.add_argument("--name", help="the model's name on the server")
    parser.add_argument("--text", action="store_true", help="add signatures that take questions as strings")
    add_detector_arguments(parser, required=False)
    parser.add_argument("--check", action="store_true", help="then check every version: replay warm-up, compare")
    parser.add_argument("--check-only", action="store_true", help="check existing versions, export nothing")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16", "float16"], default="float32", help="default: %(default)s"
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
    parser.add_argument("--format", choices=["saved_model", "litert", "onnx"], default="saved_model", help="one file")
    parser.add_argument(
        "--sizes", metavar="B,T,N", help="with --format: its examples, tokens and boxes (default: 1,20,36)"
    )
    parser.add_argument("--config", metavar="FILE", help="config.json in place of the checkpoint's")


def run(args: argparse.Namespace) -> int:
    if args.sizes is not None and args.format == "saved_model":
        raise ValueError("--sizes is for --format litert or onnx: a SavedModel takes any size.")
    if args.format != "saved_model":
        _reject_other_options(args, f"--format {args.format}", ("format", "sizes", "config"))
    elif args.check_only:
        _reject_other_options(args, "--check-only", ("name", "check", "check_only", "config", "detector"))
    elif args.detector is None and detector_settings(args) != NO_CHANGES:
        raise ValueError("The pipeline and its numbers have no effect without --detector: give the detector, too.")
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
    if args.format != "saved_model":
        from lxmert_tf.serving.other_formats import export_file

        sizes = _integers("--sizes", args.sizes or "1,20,36")
        print(export_file(args.model, args.base, args.format, sizes, args.config))
        return 0
    if not args.name:
        raise ValueError("Give the model's name on the server (--name).")
    if not args.check_only:
        from lxmert_tf.serving.export import export

        written = export(
            args.model,
            args.base,
            args.name,
            text=args.text,
            precision=args.precision,
            outputs=_items(args.outputs),
            labels=args.labels,
            top_k=args.top_k,
            probabilities=args.probabilities,
            batch_sizes=_integers("--batch-sizes", args.batch_sizes),
            version=args.version,
            label=args.label,
            config=args.config,
            detector=args.detector,
            pipeline=detector_settings(args),
        )
        print(written)
        _print_notes(written, args.top_k)
    if not (args.check or args.check_only):
        return 0
    from lxmert_tf.serving.check import check_model

    sound = check_model(args.base, args.name, args.model, report=print, config=args.config, detector=args.detector)
    return 0 if sound else 1


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
