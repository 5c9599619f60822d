"""The demonstration behind `lxmert-tf demo`: draw, train, evaluate, compare, export, serve, and look."""

import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.answers import AnswerTable, read_answers
from lxmert_tf.configuration import SINGLE_LABEL
from lxmert_tf.data.annotations import Annotation, read_annotations
from lxmert_tf.data.features.build import build_features
from lxmert_tf.data.features.store import open_features
from lxmert_tf.demo.dataset import write_dataset

if TYPE_CHECKING:
    import keras

SHOWN = 3  # questions that the reloaded SavedModel answers

# Runs in another process, which has the SavedModel but none of the model's Python code.
SERVE = """
import sys
import numpy as np
import tensorflow as tf

directory, inputs, scores = sys.argv[1:]
answer = tf.saved_model.load(directory).signatures["serving_default"]
with np.load(inputs) as arrays:
    outputs = answer(**{name: tf.constant(value) for name, value in arrays.items()})
np.save(scores, outputs["question_answering_score"].numpy())
"""


def run_demo(
    output: str | Path,
    images: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    overwrite: bool = False,
) -> dict[str, float]:
    """Runs the whole demonstration and prints as it goes.

    Writes `output`/data (the set), checkpoint, saved_model and answer.png.

    Returns:
        Held-out accuracy in 0..1 by question type, and "overall".

    Raises:
        FileExistsError: `output` is not empty and `overwrite` is not given.
    """
    output = _prepare_directory(Path(output), overwrite)
    print_heading("1. Draw pictures and write them in the original's file formats")
    data = write_dataset(output / "data", "vqa", num_images=images, seed=seed)

    print_heading("2. Train a small LXMERT from scratch")
    task = _Task(data)
    model = train(task, epochs, batch_size, learning_rate, seed)

    print_heading("3. Answer held-out questions about held-out pictures")
    accuracy = report(task, model)

    print_heading("4. Save the checkpoint and load it in PyTorch")
    save(task, model, output / "checkpoint")
    compare_with_pytorch(task, model, output / "checkpoint")

    print_heading("5. Export a SavedModel and answer with it in a fresh process")
    chosen = task.interesting(SHOWN)
    answer_with_saved_model(task, model, chosen, output)

    print_heading("6. Look at what the answer comes from")
    picture = draw_answer(task, model, chosen[0], output / "answer.png")
    print(f"{picture}\n\nAll of it is in {output}.")
    return accuracy


class _Task:
    """The written set, read back with the readers for the original's formats."""

    def __init__(self, data: Path):
        from lxmert_tf import LxmertConfig, LxmertTokenizer

        self.data = data
        self.config = LxmertConfig.from_pretrained(data)
        self.tokenizer = LxmertTokenizer.from_pretrained(data)
        self.answers: AnswerTable = read_answers(data / "label2ans.json", data / "ans2label.json")
        build_features(data / "features.tsv", data / "features.h5")
        self.features = open_features(data / "features.h5")
        self.train = read_annotations(data / "train.json", self.answers)
        self.valid = read_annotations(data / "valid.json", self.answers)

    def dataset(self, annotations: list[Annotation], batch_size: int, seed: int | None = None):
        """Batches of these questions; shuffled if there is a seed."""
        from lxmert_tf.data.datasets import vqa_dataset

        return vqa_dataset(annotations, self.features, self.tokenizer, self.answers, batch_size, seed=seed)

    def inputs(self, annotations: list[Annotation]) -> dict[str, np.ndarray]:
        """Model inputs, without the labels."""
        return self.dataset(annotations, len(annotations)).batch(0)[0]

    def interesting(self, number: int) -> list[Annotation]:
        """The first held-out question of each of the first few types."""
        first = {annotation.question_type or "": annotation for annotation in reversed(self.valid)}
        return [first[name] for name in sorted(first, reverse=True)][:number]


def train(task: _Task, epochs: int, batch_size: int, learning_rate: float, seed: int) -> "keras.Model":
    """A `TFLxmertForQuestionAnswering` fitted to the training questions."""
    import keras

    from lxmert_tf import LinearWarmup, TFLxmertForQuestionAnswering
    from lxmert_tf.training.options import verbosity

    keras.utils.set_random_seed(seed)
    model = TFLxmertForQuestionAnswering(task.config)
    dataset = task.dataset(task.train, batch_size, seed)
    schedule = LinearWarmup(learning_rate, total_steps=epochs * len(dataset))
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0),
        metrics=["accuracy"],
    )
    print(f"{len(task.train):,} questions, {model.count_params():,} parameters, {len(task.answers)} answers")
    started = time.perf_counter()
    # Every question here has one right answer: its row is the label, and cross entropy the loss.
    batches = dataset.batches().map(lambda x, y: (x, keras.ops.argmax(y["labels"], axis=-1)))
    model.fit(batches, epochs=epochs, steps_per_epoch=len(dataset), shuffle=False, verbose=verbosity("auto"))
    print(f"trained in {time.perf_counter() - started:.0f} s")
    return model


def report(task: _Task, model: "keras.Model") -> dict[str, float]:
    """Prints held-out accuracy per question type beside the most frequent answer of that type; returns it."""
    dataset = task.dataset(task.valid, 256)
    scores = model.predict(dataset.batches(0, len(dataset)), verbose=0).question_answering_score
    right = [
        task.answers[row] == _answer(annotation) for row, annotation in zip(scores.argmax(-1), task.valid, strict=True)
    ]

    training_answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for annotation in task.train:
        training_answers[annotation.question_type or ""][_answer(annotation)] += 1
    accuracy, baseline = defaultdict(list), defaultdict(list)
    for annotation, hit in zip(task.valid, right, strict=True):
        kind = annotation.question_type or ""
        majority = training_answers[kind].most_common(1)[0][0]
        for name in (kind, "overall"):
            accuracy[name].append(hit)
            baseline[name].append(_answer(annotation) == majority)

    print(f"{'question type':<16}{'questions':>10}{'accuracy':>10}{'majority':>10}")
    for name in sorted(accuracy, key=lambda name: (name == "overall", name)):
        hits = accuracy[name]
        print(f"{name:<16}{len(hits):>10}{np.mean(hits):>10.1%}{np.mean(baseline[name]):>10.1%}")
    return {name: float(np.mean(hits)) for name, hits in accuracy.items()}


def save(task: _Task, model: "keras.Model", checkpoint: Path) -> None:
    """Writes a self-contained model directory: config with the answers, weights, vocabulary."""
    model.config.id2label = dict(enumerate(task.answers[i] for i in range(len(task.answers))))
    model.config.label2id = {label: index for index, label in model.config.id2label.items()}
    model.config.problem_type = SINGLE_LABEL
    model.save_pretrained(checkpoint)
    task.tokenizer.save_pretrained(checkpoint)
    print(checkpoint)


def compare_with_pytorch(task: _Task, model: "keras.Model", checkpoint: Path) -> None:
    """Loads the checkpoint into lxmert_pt and prints the largest difference of each output."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed, so this step is skipped; install it with pip install 'lxmert-tf[pt]'.")
        return
    from lxmert_pt import LxmertForQuestionAnswering

    reference = LxmertForQuestionAnswering.from_pretrained(checkpoint).eval()
    inputs = task.inputs(task.valid[:64])
    options = {"output_attentions": True, "output_hidden_states": True}
    ours = model(inputs, **options)
    with torch.no_grad():
        theirs = reference(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **options)
    for name, value in ours.items():
        pairs = zip(value, theirs[name], strict=True) if isinstance(value, tuple) else [(value, theirs[name])]
        largest = max(float(np.abs(np.asarray(one) - other.numpy()).max()) for one, other in pairs)
        print(f"{name:<28} largest difference {largest:.1e}")


def answer_with_saved_model(task: _Task, model: "keras.Model", chosen: list[Annotation], output: Path) -> None:
    """Exports the model, and answers the chosen questions in another process with the SavedModel alone."""
    model.export(output / "saved_model", verbose=False)
    inputs: dict[str, Any] = task.inputs(chosen)
    arrays, scores = output / "request.npz", output / "response.npy"
    np.savez(arrays, **inputs)
    command = [sys.executable, "-c", SERVE, str(output / "saved_model"), str(arrays), str(scores)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"The exported model did not answer: {finished.stderr.strip().splitlines()[-1]}")
    served = np.load(scores)
    arrays.unlink()
    scores.unlink()
    for annotation, row in zip(chosen, served, strict=True):
        answer = task.answers[int(row.argmax())]
        print(f"{annotation.img_id}: {annotation.sent} {answer} (right: {_answer(annotation)})")
    difference = np.abs(served - np.asarray(model(inputs).question_answering_score)).max()
    print(f"largest difference between the SavedModel and the model: {difference:.1e}")


def draw_answer(task: _Task, model: "keras.Model", annotation: Annotation, path: Path) -> Path:
    """Draws the picture, the question, the answer, and the words and boxes that it comes from, as a PNG."""
    from lxmert_tf.demo.pictures import class_name
    from lxmert_tf.detector.image_processor import read_image
    from lxmert_tf.explain.explanation import Explainer
    from lxmert_tf.explain.scene import Scene

    found = {name: values[0] for name, values in task.features.read([annotation.img_id]).items()}
    names = [class_name(*classes) for classes in zip(found["objects_id"], found["attrs_id"], strict=True)]
    pixels = read_image(task.data / "images" / f"{annotation.img_id}.png")
    scene = Scene(found["visual_feats"], found["visual_pos"], names, pixels)
    Explainer(model, task.tokenizer, task.answers).explain(annotation.sent, scene).save(path)
    return path


def print_heading(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}", flush=True)


def _answer(annotation: Annotation) -> str:
    label = annotation.label or {}
    return max(label, key=lambda answer: label[answer])


def _prepare_directory(output: Path, overwrite: bool) -> Path:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        if not overwrite:
            raise FileExistsError(f"{output} already exists; give --overwrite to replace it, or another --output.")
        if not (output / "data" / "label2ans.json").exists():
            raise FileExistsError(f"{output} is not the output of a demo; --overwrite replaces nothing else.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    return output
