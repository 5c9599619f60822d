"""What `lxmert-tf export` writes, in its runtime: `python exported.py WORK VARIANT BATCH`, with WORK forward or vqa.

A variant is a format and a precision, as openvino-int8. Exports are made in $WRITTEN once, in processes of their own.
A SavedModel runs in TensorFlow's C API, as in a server.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from worker import inputs, padded, questions, serve

QUESTIONS = 32  # in a batch of the stream
MODELS = {"forward": ("TFLxmertModel", 1), "vqa": ("TFLxmertForQuestionAnswering", 3129)}
CHECKPOINT = """
import sys
import lxmert_tf
model = getattr(lxmert_tf, sys.argv[2])(lxmert_tf.LxmertConfig(num_qa_labels=int(sys.argv[3])))
model.save_pretrained(sys.argv[1])
"""


def exported(work: str, format: str, precision: str) -> Path:
    """The folder of models, exported if it is not there."""
    written = Path(os.environ["WRITTEN"])
    checkpoint, base = written / work, written / f"{work}-{format}-{precision}"
    if not (checkpoint / "config.json").exists():
        _run("-c", CHECKPOINT, str(checkpoint), *map(str, MODELS[work]))
    if not base.exists():
        command = ["-m", "lxmert_tf.cli", "export", str(checkpoint), str(base), "--name", "m"]
        _run(*command, "--format", format, "--precision", precision, "--batch-sizes", "1")
    return base


def _run(*command: str) -> None:
    """Runs Python; stdout is for the protocol."""
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def load(base: Path, format: str, precision: str):
    """A function: a signature's name -> a function of arrays by name -> the outputs by name."""
    if format == "saved_model":
        from support.c_api import SavedModel

        model = SavedModel(base / "m" / "1")
        return lambda signature: lambda given: model.run(given, signature)
    from lxmert_tf.serving.runtimes.base import model_name, runtime

    target = runtime(format)
    return lambda signature: target.load(base / model_name("m", signature) / "1", precision).run


def as_given(arrays):
    """As clients send them: ids and masks in int32, and a mask of the boxes."""
    arrays = {name: value.astype("int32") if value.dtype == "int64" else value for name, value in arrays.items()}
    if "visual_feats" in arrays:
        arrays["visual_attention_mask"] = np.ones(arrays["visual_feats"].shape[:2], "int32")
    return arrays


def forward(signature, batch: int):
    run, given = signature("serving_default"), as_given(inputs(batch))
    return lambda: run(given)


def vqa(signature, count: int):
    encode, answer = signature("encode_image"), signature("answer_encoded")
    texts, images = questions(count)
    pictures = as_given(inputs(int(images[-1]) + 1))
    pictures = {name: pictures[name] for name in ("visual_feats", "visual_pos", "visual_attention_mask")}
    order, seen = np.argsort([len(text) for text in texts], kind="stable"), pictures["visual_attention_mask"]

    def step():
        parts = [encode({name: value[i : i + 16] for name, value in pictures.items()}) for i in range(0, len(seen), 16)]
        states = np.concatenate([part["vision_states"] for part in parts])
        for i in range(0, count, QUESTIONS):
            chosen = order[i : i + QUESTIONS]
            ids, mask = padded([texts[j] for j in chosen], max(len(texts[j]) for j in chosen))
            text = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            rows = images[chosen]
            answer(as_given(text) | {"vision_states": states[rows], "visual_attention_mask": seen[rows]})

    return step


work, variant, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
format, precision = variant.split("-")
signature = load(exported(work, format, precision), format, precision)
serve({"forward": forward, "vqa": vqa}[work](signature, size))
