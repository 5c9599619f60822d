"""`lxmert-tf answer`: questions about pictures, answered on this machine."""

import argparse
import json
import os
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxmert_tf.cli.detector_options import add_detector_arguments, detector_settings
from lxmert_tf.command_line import quiet_start
from lxmert_tf.files import check_apart, check_place

if TYPE_CHECKING:
    from lxmert_tf.detector import PictureAnswers, VisualQuestionAnsweringPipeline

NAME = "answer"
HELP = "answer questions about pictures"
EPILOG = """\
Each argument that is a file is a picture, every other one a question; all questions are asked about all pictures. A
model for visual reasoning (NLVR2) judges statements about two pictures.

Prints the best answers, one a line, with their scores in 0..1. --save draws the regions that the detector has found,
their lines the wider and lighter the more the model looked at them (the attention of [CLS] in its last cross layer).

examples:
  lxmert-tf answer cat.jpg "what color is the cat?" --model unc-nlp/lxmert-vqa-uncased --detector frcnn
  lxmert-tf answer *.jpg --questions questions.txt --model vqa --detector frcnn --json > answers.json
  lxmert-tf answer left.jpg right.jpg "Both images show a dog." --model nlvr2 --detector frcnn --save answered.png
"""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("arguments", nargs="+", metavar="PHOTO|QUESTION")
    parser.add_argument("--questions", metavar="FILE", help="more questions, one a line")
    parser.add_argument("--model", required=True, help="checkpoint of any format: directory, file or Hub id")
    add_detector_arguments(parser)
    parser.add_argument("--answers", metavar="FILE", help="answer table (default: the model's labels)")
    parser.add_argument("--vocab", metavar="FILE", help="vocab.txt or directory (default: the model's)")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="answers per question (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON list of {image, question, answers, regions}"
    )
    parser.add_argument("--save", metavar="FILE", help="draw the answers and where the model looked (.png, .jpg)")


def run(args: argparse.Namespace) -> int:
    photos, questions = sorted_out(args.arguments, args.questions)
    settings = detector_settings(args)
    if args.save:
        from lxmert_tf.detector.drawing import check_suffix

        check_suffix(args.save)
        check_apart(args.save, [*photos, args.questions, args.model, args.detector])
        check_place(args.save)
    with quiet_start():
        pipeline = load_pipeline(args, settings)
    answered = pipeline(photos, questions, args.top_k, output_weights=args.json or bool(args.save))
    if args.save:
        from lxmert_tf.detector.drawing import save_answers

        rows = [answered[start : start + len(questions)] for start in range(0, len(answered), len(questions))]
        save_answers(args.save, rows, [row[0].pictures for row in rows])
    if args.json:
        print(json.dumps([as_json(each) for each in answered]))
        return 0
    for each in answered:
        if len(answered) > 1:
            print(f"{', '.join(each.pictures)}: {each.question}")
        for answer in each.answers:
            print(f"{answer.id if answer.text is None else answer.text}\t{answer.score:.3f}")
    return 0


def sorted_out(arguments: list[str], file: str | None) -> tuple[list[str], list[str]]:
    """The photos and the questions among the arguments, and the questions of a file.

    Raises:
        FileNotFoundError: an argument ends as a picture's name does, but there is no such file.
        ValueError: there is no photo or no question, or an argument is a URL.
    """
    from lxmert_tf.detector.image_processor import is_url

    photos = [each for each in arguments if os.path.isfile(each)]  # False where a question is too long for a path
    questions = [each for each in arguments if each not in photos]
    for each in questions:
        if is_url(each):
            raise ValueError(f"{each} is a URL, which is not opened: download it, and give the file.")
        if each.lower().endswith(PICTURE_SUFFIXES):
            raise FileNotFoundError(f"There is no file {each!r}.")
        if os.path.isdir(each):
            raise IsADirectoryError(f"{each} is a directory: name the pictures in it.")
    if file is not None:
        questions += [line.strip() for line in Path(file).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not photos:
        raise ValueError(
            f"Give at least one photo: there is no file {', '.join(reprlib.repr(each) for each in questions[:3])}."
        )
    if not questions:
        raise ValueError("Give at least one question, in quotes or in a file (--questions).")
    return photos, questions


def load_pipeline(args: argparse.Namespace, settings: dict[str, Any]) -> "VisualQuestionAnsweringPipeline":
    """The pipeline of the model, detector, tokenizer and answers that the arguments name."""
    from lxmert_tf import LxmertTokenizer
    from lxmert_tf.answers import model_answers
    from lxmert_tf.detector import FasterRCNN, VisualQuestionAnsweringPipeline
    from lxmert_tf.serving.checkpoint import load

    source = load(args.model)
    tokenizer = LxmertTokenizer.from_pretrained(args.vocab or source.directory)
    table = None
    if source.model.task == "qa":
        table = model_answers(source.directory, source.model.config, args.answers)
    elif args.answers:
        raise ValueError(f"--answers is for models that answer questions, not for {type(source.model).__name__}.")
    detector = FasterRCNN.from_pretrained(args.detector)
    return VisualQuestionAnsweringPipeline(source.model, detector, tokenizer, table, **settings)


def as_json(answered: "PictureAnswers") -> dict[str, Any]:
    """An answer as one JSON object; of a pair of pictures, `image` and `regions` are lists of two."""
    weights = answered.box_weights or ()
    found = [
        [
            {
                "box": regions.boxes[place].tolist(),
                "object": int(regions.object_ids[place]),
                "name": regions.object_names and regions.object_names[place],
                "attribute": regions.attribute_names and regions.attribute_names[place],
                "weight": float(shares[place]),
            }
            for place in range(len(regions))
        ]
        for regions, shares in zip(answered.regions, weights, strict=True)
    ]
    single = len(answered.pictures) == 1
    return {
        "image": answered.pictures[0] if single else list(answered.pictures),
        "question": answered.question,
        "answers": [each._asdict() for each in answered.answers],
        "regions": found[0] if single else found,
    }
