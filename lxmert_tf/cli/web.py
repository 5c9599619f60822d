"""`lxmert-tf web`: a page to ask pictures on."""

import argparse
import threading

from lxmert_tf.cli.detector_options import NO_CHANGES, add_detector_arguments, detector_settings
from lxmert_tf.command_line import quiet_start

NAME = "web"
HELP = "open a page on which pictures are asked, and answers explained"
EPILOG = """\
Pictures are uploaded where there is a detector, or chosen from a file of region features, whose boxes get the names of
the classes of --detector. Only this machine can open the page, unless --host says otherwise; Ctrl-C ends it. Needs the
extra `web`.

examples:
  lxmert-tf web --model unc-nlp/lxmert-vqa-uncased --detector DETECTOR
  lxmert-tf web --model RUN/best --features FILE.h5 --images PICTURES
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model directory, such as RUN/best, checkpoint or Hub id")
    parser.add_argument("--vocab", metavar="FILE", help="vocab.txt or directory (default: the model's)")
    parser.add_argument("--answers", metavar="FILE", help="answer table (default: the model's labels)")
    parser.add_argument("--features", metavar="FILE", help="region features of pictures to choose from")
    parser.add_argument("--images", metavar="DIR", help="with --features: their pictures, as ID.jpg or ID.png")
    add_detector_arguments(parser, required=False)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument(
        "--max-upload", type=float, default=10, metavar="MB", help="size of a picture's file (default: %(default)s)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=120, metavar="SECONDS", help="of an answer (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    settings = detector_settings(args)
    if args.features is None and args.detector is None:
        raise ValueError("Give --detector, or --features.")
    if args.features is None and args.images is not None:
        raise ValueError("--images goes with --features.")
    if args.features is not None and settings != NO_CHANGES:
        raise ValueError("--pipeline, --boxes, --min-boxes, --max-boxes and --set go without --features.")
    for name in ("max_upload", "time_limit"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {getattr(args, name):g}.")

    with quiet_start():
        from lxmert_tf.data.features.store import open_features
        from lxmert_tf.explain.explanation import Explainer
        from lxmert_tf.web.asking import Asking, see_features, see_photos
        from lxmert_tf.web.page import make_page, open_page

        explainer = Explainer(args.model, vocab=args.vocab, answers=args.answers)
    if args.features is None:
        see, names = see_photos(explainer, args.detector, **settings), None
    else:
        store = open_features(args.features)
        see, names = see_features(explainer, store, args.images, args.detector), store.img_ids
    page = make_page(Asking(explainer, see, args.time_limit), names)
    print(f"{open_page(page, args.host, args.port, args.max_upload)}   (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    finally:
        page.close()
    return 0
