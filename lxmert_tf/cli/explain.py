"""`lxmert-tf explain`: where an answer comes from, as a picture or a page; and the perturbation test."""

import argparse
import json
from typing import Any

from lxmert_tf.cli.detector_options import NO_CHANGES, add_detector_arguments, detector_settings
from lxmert_tf.explain.names import METHODS, spelled
from lxmert_tf.files import check_apart, check_place

NAME = "explain"
HELP = "show which words and boxes an answer comes from, or measure how well a method tells"
EPILOG = """\
--save OUT.png draws the picture with its boxes, the shaded words and the answers; --save OUT.html writes a page of them
with every attention map, which needs nothing else.

`explain evaluate` is the perturbation test: words or boxes are removed, the least relevant first (negative: the higher
the area the better) or the most relevant first (positive: the lower the better). See docs/explaining.md.

examples:
  lxmert-tf explain --model RUN/best --photo cat.jpg --detector DETECTOR "What color is the cat?" --save cat.png
  lxmert-tf explain --model RUN/best --features FILE.h5 --image 42 "What color is the cat?" --save cat.html
  lxmert-tf explain evaluate --model RUN/best --features FILE.h5 --data valid.json --limit 100 --save curves.png
"""
EVALUATE = "evaluate"
# By option: what is done without it. None there, so that options that would do nothing are seen.
QUESTION = {"method": "chefer"}
TEST = {"methods": "chefer,raw_attention,rollout,random", "batch_size": 256}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION", help=f'the question; or "{EVALUATE}", the perturbation test')
    parser.add_argument("--model", required=True, help="model directory, such as RUN/best, checkpoint or Hub id")
    parser.add_argument("--vocab", metavar="FILE", help="vocab.txt or directory (default: the model's)")
    parser.add_argument("--answers", metavar="FILE", help="answer table (default: the model's labels)")
    parser.add_argument("--features", metavar="FILE", help="region features")
    parser.add_argument("--save", metavar="FILE", help="the picture (.png) or page (.html) to write; of evaluate, .png")
    picture = parser.add_argument_group("a question about a picture")
    picture.add_argument("--photo", metavar="FILE", help="the picture; with --features, what is drawn on")
    add_detector_arguments(parser, required=False)
    picture.add_argument("--image", metavar="ID", help="the picture's name in the region features")
    picture.add_argument("--answer", help="the answer to explain, by name or id (default: the model's)")
    picture.add_argument("--method", choices=METHODS, type=spelled, help=f"(default: {QUESTION['method']})")
    test = parser.add_argument_group("the perturbation test")
    test.add_argument("--data", nargs="+", metavar="FILE", help="annotations with labels (json)")
    test.add_argument("--methods", metavar="LIST", help=f"(default: {TEST['methods']})")
    test.add_argument("--batch-size", type=int, help=f"(default: {TEST['batch_size']})")
    test.add_argument("--limit", type=int, metavar="N", help="only the first N images, in the order of the features")
    test.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    return evaluate(args) if args.question == EVALUATE else show(args)


def show(args: argparse.Namespace) -> int:
    """Explains one answer."""
    _refuse(args, f'goes with "{EVALUATE}"', "data", "limit", "json", *TEST)
    _require(args, "save")
    if not args.question.strip():
        raise ValueError("The question is empty.")
    if not args.save.endswith((".png", ".html")):
        raise ValueError(f"--save must end in .png or .html, got {args.save}.")
    if args.features is None:
        _refuse(args, "goes with --features", "image")
    else:
        _refuse_numbers(args, "go with --photo alone, not with --features")
    if None in ((args.photo, args.detector) if args.features is None else (args.image,)):
        raise ValueError("Give --photo and --detector, or --features and --image.")
    check_apart(args.save, [args.photo, args.features, args.answers, args.vocab])
    check_place(args.save)
    settings = detector_settings(args)

    from lxmert_tf.explain.explanation import Explainer
    from lxmert_tf.explain.scene import from_features, from_photo

    explainer = Explainer(args.model, vocab=args.vocab, answers=args.answers)
    if args.features is not None:
        scene = from_features(args.features, args.image, args.photo, args.detector)
    else:
        scene = from_photo(args.photo, args.detector, **settings)
    explanation = explainer.explain(args.question, scene, args.answer, _option(args, "method"))
    explanation.save(args.save)
    print(f"{args.question} {explanation.answer}\n{args.save}")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Runs the perturbation test on a set."""
    _refuse(args, f'goes with a question, not with "{EVALUATE}"', "photo", "detector", "image", "answer", *QUESTION)
    _refuse_numbers(args, f'go with a question, not with "{EVALUATE}"')
    _require(args, "data", "features")
    if args.save is not None:
        if not args.save.endswith(".png"):
            raise ValueError(f"--save of {EVALUATE} must end in .png, got {args.save}.")
        check_apart(args.save, [*args.data, args.features, args.answers, args.vocab])
        check_place(args.save)

    from lxmert_tf.explain.evaluation import evaluate

    result = evaluate(
        args.model,
        args.data,
        args.features,
        methods=[method.strip() for method in _option(args, "methods").split(",") if method.strip()],
        vocab=args.vocab,
        answers=args.answers,
        batch_size=_option(args, "batch_size"),
        limit=args.limit,
        verbose=not args.json,
    )
    if args.save is not None:
        from lxmert_tf.explain.curves import draw_curves

        draw_curves(result, args.save)
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"area under accuracy, %, of {result['examples']:,} questions, {100 * result['accuracy']:.2f}% of them right")
    shown = {"image": "boxes", "text": "words"}
    columns = [(part, direction) for part in shown for direction in ("negative", "positive")]
    print(f"{'':<24}" + "".join(f"{shown[part] + ' ' + direction:>18}" for part, direction in columns))
    for method, parts in result["areas"].items():
        print(f"{method:<24}" + "".join(f"{100 * parts[part][direction]:>18.2f}" for part, direction in columns))
    return 0


def _option(args: argparse.Namespace, name: str) -> Any:
    """The value of an option, or its default."""
    value = getattr(args, name)
    return {**QUESTION, **TEST}[name] if value is None else value


def _require(args: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(args, name) is None:
            raise ValueError(f"--{name} is missing.")


def _refuse_numbers(args: argparse.Namespace, why: str) -> None:
    if detector_settings(args) != NO_CHANGES:
        raise ValueError(f"--pipeline, --boxes, --min-boxes, --max-boxes and --set {why}.")


def _refuse(args: argparse.Namespace, why: str, *names: str) -> None:
    for name in names:
        value: Any = getattr(args, name)
        if value not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} {why}.")
