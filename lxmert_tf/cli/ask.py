"""`lxmert-tf ask`: questions about an image to a model on a server."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lxmert_tf.command_line import quiet_start

if TYPE_CHECKING:
    from lxmert_tf.serving.client import Client

NAME = "ask"
HELP = "ask a model on TensorFlow Serving about an image"
EPILOG = """\
Prints the best answers, one a line, with their scores in 0..1. The image is a JPEG or PNG file, for models exported
with --detector, or one of FEATURES, a file of `lxmert-tf features build`. Several questions share one pass over it.

The model answers strings if it was exported with --text; give --tokenizer, the model directory or its vocab.txt, for
one that was not. HOST:PORT may be the server's REST or gRPC port: the client tries both (--protocol skips that).

examples:
  lxmert-tf ask --server localhost:8501 --name vqa --photo cat.jpg "what color is the cat?"
  lxmert-tf ask --server localhost:8501 --name vqa --features valid.h5 --image 42 "what color is the square?"
  lxmert-tf ask --server localhost:8500 --name vqa --label canary --features valid.h5 --image 42 --json "how many?"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", nargs="+", metavar="QUESTION")
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", required=True, help="the model's name on the server")
    parser.add_argument(
        "--photo", action="append", metavar="FILE", help="JPEG or PNG file; a second one for visual reasoning"
    )
    parser.add_argument("--features", help="file of region features instead")
    parser.add_argument("--image", metavar="IMG_ID", help="the image's name in it")
    parser.add_argument("--version", type=int, metavar="N", help="version of the model; default: the latest")
    parser.add_argument("--label", help="version label instead, such as stable")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenise here, for models exported without --text")
    parser.add_argument("--protocol", choices=["auto", "rest", "grpc"], default="auto")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--retries", type=int, default=3, help="while the server is not there (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON list of {question, answers}")


def run(args: argparse.Namespace) -> int:
    from lxmert_tf.serving.client import InvalidRequestError, connect

    _check(args)
    options = {"version": args.version, "label": args.label, "timeout": args.timeout, "retries": args.retries}
    with quiet_start():  # gRPC brings TensorFlow
        client = connect(args.server, args.name, args.protocol, **options)
    with client:
        try:
            if args.photo and not args.tokenizer:
                answers = client.answer_image([args.photo], args.questions)
            else:
                answers = _ask(client, args.questions, args.tokenizer, _regions(client, args))
        except InvalidRequestError as error:
            if args.photo and any(f"{signature!r}" in str(error) for signature in ("detect", "answer_image")):
                raise ValueError(f"{args.name} does not take photos: export it with --detector. ({error})") from error
            if args.tokenizer is None and "answer_text" in str(error):
                raise ValueError(
                    f"{args.name} does not take strings: give --tokenizer, or export it with --text. ({error})"
                ) from error
            raise
    if args.json:
        rows = zip(args.questions, answers, strict=True)
        print(json.dumps([{"question": q, "answers": [a._asdict() for a in best]} for q, best in rows]))
        return 0
    for question, best in zip(args.questions, answers, strict=True):
        if len(args.questions) > 1:
            print(question)
        for answer in best:
            print(f"{answer.id if answer.text is None else answer.text}\t{answer.score:.3f}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """ValueError unless there is one image, or a pair."""
    if bool(args.photo) == bool(args.features) or bool(args.features) != bool(args.image):
        raise ValueError("Give a photo (--photo FILE), or an image of a file of features (--features FILE --image ID).")
    if args.photo and len(args.photo) > 2:
        raise ValueError(f"--photo is for one file, or two for visual reasoning, got {len(args.photo)}.")


def _regions(client: "Client", args: argparse.Namespace) -> dict:
    """The visual inputs of the image: detected by the server, or from the file of features."""
    if args.photo:
        return client.detect([args.photo])
    from lxmert_tf.data.features.store import open_features

    return open_features(args.features).read([args.image], labels=False)


def _ask(client: "Client", questions: list[str], tokenizer: str | None, image: dict) -> list:
    """The best answers to each question; several share one pass over the image."""
    asked: Any = questions
    one_shot: Callable[..., list] = client.answer
    if tokenizer is not None:
        from lxmert_tf import LxmertTokenizer

        asked = dict(LxmertTokenizer.from_pretrained(tokenizer)(questions, padding=True, return_tensors="np"))
        one_shot = client.answer_ids
    if len(questions) == 1:
        return one_shot(asked, **image)
    return client.answer_encoded(asked, client.encode_image(**image))
