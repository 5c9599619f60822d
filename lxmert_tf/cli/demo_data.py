"""`lxmert-tf demo-data`: made-up sets of any size, in the file formats of the original LXMERT."""

import argparse

from lxmert_tf.tasks import TASKS

NAME = "demo-data"
HELP = "draw pictures of coloured shapes and write a set for training, of any size, in the original's file formats"
EPILOG = """\
Of the pictures 80% are for training, 10% for validation and 10% for testing. OUT holds, whatever the task,
  features.tsv                       region features of all pictures
  label2ans.json, ans2label.json     the answers of VQA and GQA; all_ans.json: the same as pretraining lists them
  vocab.txt, config.json             a small model that learns the set, the same for every task
  detector.json                      the names of the boxes' classes, for --detector of `lxmert-tf explain` and `web`
  images/                            the pictures, unless --no-pictures is given
and train.json, valid.json and test.json (without labels). With --task all these three are in OUT/vqa, OUT/gqa,
OUT/nlvr2 and OUT/pretrain, and everything else serves all of them: OUT/gqa/train.json goes with OUT/features.tsv.

A picture has up to 12 questions of VQA or 11 of GQA; NLVR2 has 8 pairs for each picture. The small model learns VQA,
GQA and NLVR2 from 4000 pictures in eight epochs, minutes on two cores, with AdamW at a peak learning rate of 1e-3 for
VQA and 5e-4 for GQA (batches of 64), and 3e-4 for NLVR2 (batches of 32). Higher rates can stall.

--boxes 36 --dim 2048 has the size of real features, 0.4 MB a picture.

examples:
  lxmert-tf demo-data /tmp/vqa
  lxmert-tf demo-data /tmp/all --task all --images 4000 --no-pictures
  lxmert-tf demo-data /tmp/large --images 20000 --boxes 36 --dim 2048 --no-pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", help="directory to write to")
    parser.add_argument("--task", choices=[*TASKS, "all"], default="vqa", help="whose sentences (default: %(default)s)")
    parser.add_argument(
        "--images", type=int, default=2000, help="pictures to draw, 10 or more, 100 for nlvr2 (default: %(default)s)"
    )
    parser.add_argument("--boxes", type=int, default=10, help="boxes per picture (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=64, help="values per region feature (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set (default: %(default)s)")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help="write no images/")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier set in OUT, and nothing else")


def run(args: argparse.Namespace) -> int:
    from lxmert_tf.demo.dataset import write_dataset

    directory = write_dataset(
        args.output,
        args.task,
        num_images=args.images,
        boxes=args.boxes,
        feat_dim=args.dim,
        seed=args.seed,
        pictures=args.pictures,
        overwrite=args.overwrite,
    )
    print(directory)
    return 0
