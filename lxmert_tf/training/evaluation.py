"""Evaluating and predicting with a self-contained model directory, such as RUN/best."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from conversion.source import open_source
from lxmert_tf import LxmertTokenizer
from lxmert_tf.answers import AnswerTable, config_answers, read_answers
from lxmert_tf.data.batches import TaskDataset
from lxmert_tf.data.features.store import open_features
from lxmert_tf.files import replacing
from lxmert_tf.input_table import image_inputs, text_inputs
from lxmert_tf.losses import answer_loss
from lxmert_tf.metrics import Consistency, sentence_groups
from lxmert_tf.tasks import MODEL_TASKS
from lxmert_tf.training import tasks
from lxmert_tf.training.inputs import check_compatible, read_tokenizer
from lxmert_tf.training.options import verbosity
from lxmert_tf.training.run_directory import RUN, TRAINING

NOT_FINITE = "the region features or the weights hold NaN or infinity (see `lxmert-tf features check`)"


class Evaluator:
    """A model with its tokenizer, answers and region features.

    Args:
        task: "vqa", "gqa", "nlvr2" or "pretrain".
        model: a model directory, or any checkpoint or Hub id.
        features: the file of region features.
        vocab, answers: where the model directory has none of its own.
        batch_size: examples per step.
        max_length: longest text in tokens. Default: as in training, else 20.
        precision: Keras dtype policy.
        missing: "error" if an image has no region features, or "skip": its examples are left out.

    Raises:
        FileNotFoundError, ValueError: a file does not exist, or does not fit.
    """

    def __init__(
        self,
        task: str,
        model: str,
        features: str,
        vocab: str | None = None,
        answers: str | None = None,
        batch_size: int = 256,
        max_length: int | None = None,
        precision: str = "float32",
        missing: str = "error",
    ):
        self.task, self.batch_size, self.missing = task, batch_size, missing
        if (Path(model) / RUN).exists():
            raise ValueError(f"{model} is a run directory; give one of its models, such as {Path(model) / 'best'}.")
        training = _read_training(Path(model) / TRAINING)
        if training.get("task", task) not in (task, *({"vqa", "gqa"} if task in ("vqa", "gqa") else ())):
            raise ValueError(f"{model} was trained for {training['task']}, not for {task}.")
        self.max_length = training.get("max_length", 20) if max_length is None else max_length
        self.tokenizer: LxmertTokenizer = read_tokenizer(vocab, model)
        self.model = trained_model(task, model, precision)
        self.answers: AnswerTable | None = None
        if tasks.has_answers(task):
            config = self.model.config
            self.answers = read_answers(answers) if answers else config_answers(config)
            if self.answers is None or len(self.answers) != config.num_qa_labels:
                raise ValueError(
                    f"The answer table must name the {config.num_qa_labels} answers of {model} (--answers), "
                    f"got {'none' if self.answers is None else len(self.answers)}."
                )
        self.features = open_features(features)
        check_compatible(self.model.config, self.tokenizer, self.features)

    def dataset(self, paths: Sequence[str], limit: int | None = None) -> TaskDataset:
        """The `TaskDataset` of some annotation files, in their order; for `limit` see `vqa_dataset`."""
        return tasks.dataset(
            self.task,
            tasks.read(self.task, paths),
            self.features,
            self.tokenizer,
            self.answers,
            batch_size=self.batch_size,
            max_length=min(self.max_length, self.model.config.max_position_embeddings),
            limit=limit,
            missing=self.missing,
        )

    def evaluate(self, paths: Sequence[str], limit: int | None = None, verbose: int | str = "auto") -> dict[str, Any]:
        """The task's metrics on some annotation files.

        Returns:
            "accuracy" in 0..1 (VQA: soft; pretraining: of matching), "loss" (that of the config's `problem_type`, with
            which the model was trained), "examples", and what else the task has:
            "consistency" for NLVR2; losses and accuracies of each pretraining task; "unknown_answers" with VQA and GQA,
            which count as wrong; "missing_images", whose examples are left out.

        Raises:
            ValueError: the annotations have no labels.
        """
        dataset = self.dataset(paths, limit)
        examples = [annotation for step in range(len(dataset)) for annotation in dataset.examples(step)]
        if self.task != "pretrain" and all(annotation.label is None for annotation in examples):
            raise ValueError(f"{', '.join(paths)}: there are no labels to evaluate on; use predict.")
        metrics = tasks.metrics(self.task)
        if self.task == "nlvr2":
            metrics.append(Consistency(sentence_groups([annotation.identifier for annotation in examples])))
        measure = self._measure_by_image if self.task in ("vqa", "gqa") else self._measure
        result = {name: float(value) for name, value in measure(dataset, metrics, verbosity(verbose)).items()}
        if not np.isfinite(result["loss"]):
            raise ValueError(f"The loss is not finite: {NOT_FINITE}.")
        if "accuracy" not in result:
            result["accuracy"] = result["matched_accuracy"]
        result["examples"] = len(examples)
        if getattr(dataset, "unknown_answers", None):
            result["unknown_answers"] = sum(dataset.unknown_answers.values())
        if dataset.missing_images:
            result["missing_images"] = len(dataset.missing_images)
        return result

    def _measure(self, dataset: TaskDataset, metrics: list, verbose: int | str) -> dict[str, Any]:
        """Loss and metrics, as Keras measures them."""
        # Without XLA, which would compile anew for each length of text.
        self.model.compile(metrics=metrics, jit_compile=False)
        return self.model.evaluate(dataset.batches(0, len(dataset)), verbose=verbose, return_dict=True)

    def _measure_by_image(self, dataset: TaskDataset, metrics: list, verbose: int | str) -> dict[str, Any]:
        """What `_measure` returns of a model that answers questions; each image is encoded once."""
        loss, answer = keras.metrics.Mean("loss"), make_answer_function(self.model)
        batches = tqdm(dataset.batches(0, len(dataset)), "batches", total=len(dataset), disable=not verbose or None)
        for step, (x, y) in enumerate(batches):
            examples = dataset.examples(step)
            scores = answer(x, examples)
            batch_loss = answer_loss(scores, y["labels"], self.model.config.problem_type)
            loss.update_state(batch_loss.value, sample_weight=batch_loss.count)
            for metric in metrics:
                metric.update_state(y["labels"], scores)
        return {metric.name: metric.result() for metric in (loss, *metrics)}

    def predictions(self, paths: Sequence[str], limit: int | None = None) -> Iterator[tuple[Any, int]]:
        """(annotation, class with the largest logit), in the order of the files, one batch in memory at a time."""
        dataset = self.dataset(paths, limit)
        classify = self._classify_pairs if self.task == "nlvr2" else make_answer_function(self.model)
        batches = dataset.batches(0, len(dataset)).map(lambda x, *y: x)
        for step, x in enumerate(tqdm(batches, "batches", total=len(dataset), disable=None)):
            examples = dataset.examples(step)
            scores = np.asarray(classify(x, examples))
            for annotation, row in zip(examples, scores, strict=True):
                if not np.isfinite(row).all():
                    raise ValueError(f"The scores of {tasks.annotation_id(annotation)!r} are not finite: {NOT_FINITE}.")
                yield annotation, int(row.argmax())

    def _classify_pairs(self, x: dict, examples: Sequence) -> np.ndarray:
        return self.model.predict_on_batch(x)["logits"]

    def write_predictions(self, paths: Sequence[str], output: str | os.PathLike, limit: int | None = None) -> int:
        """Writes a submission in the benchmark's format, whole or not at all; returns how many predictions it has.

        VQA: json [{question_id, answer}]; GQA: json [{questionId, prediction}]; NLVR2: csv `identifier,True|False`.
        """
        written = 0
        with replacing(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            for annotation, best in self.predictions(paths, limit):
                file.write(self._row(annotation, best, first=not written))
                written += 1
            if self.task != "nlvr2":
                file.write("\n]\n")
        return written

    def _row(self, annotation: Any, best: int, first: bool) -> str:
        if self.task == "nlvr2":
            return f"{annotation.identifier},{bool(best)}\n"
        assert self.answers is not None  # all other tasks have them
        names = {"vqa": ("question_id", "answer"), "gqa": ("questionId", "prediction")}[self.task]
        entry = dict(zip(names, (annotation.question_id, self.answers[best]), strict=True))
        return ("[\n" if first else ",\n") + json.dumps(entry, ensure_ascii=False)


def make_answer_function(model: keras.Model) -> Callable:
    """Makes a function that answers a batch of questions and encodes each of its images once.

    Questions about one image, about five in VQA and more in GQA, stand together in the files.

    Args:
        model: one that answers questions.

    Returns:
        A function of a batch's inputs, with the features of every question's image, and of its annotations; it
        returns the scores float[B, A].
    """
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def answer(text: dict, images: dict, image: Any) -> Any:
        encoded = {name: tf.gather(value, image) for name, value in model.encode_image(**images).items()}
        return model.answer_encoded(text, **encoded, return_dict=True).question_answering_score

    def answer_batch(x: dict, examples: Sequence) -> tf.Tensor:
        ids = [annotation.img_id for annotation in examples]
        _, first, image = np.unique(ids, return_index=True, return_inverse=True)
        images = {name: tf.gather(value, first) for name, value in image_inputs(x).items()}
        return answer(text_inputs(x), images, image)

    return answer_batch


def trained_model(task: str, source: str, precision: str = "float32") -> keras.Model:
    """The task's model with a checkpoint's weights, which must hold all that the task reads."""
    checkpoint = open_source(source)
    model = tasks.model_class(task).from_pretrained(checkpoint, dtype=precision)
    missing = checkpoint.match(MODEL_TASKS[task]).missing
    if missing:
        raise ValueError(f"{source} is not a trained model for {task}: it lacks {', '.join(sorted(missing)[:3])}.")
    return model


def _read_training(path: Path) -> dict[str, Any]:
    """What a training run records beside its models; nothing where there is no such file."""
    if not path.exists():
        return {}
    try:
        training = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(training["task"], str) or not isinstance(training["max_length"], int):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: it must hold task and max_length; repair or remove it.") from None
    return training
