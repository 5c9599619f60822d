"""The base of the clients of TensorFlow Serving: questions, retries and errors.

Shapes: B examples, T tokens, N boxes, D feature width, H hidden units.
"""

import abc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lxmert_tf.answers import TRUTHS, Answer
from lxmert_tf.input_table import SIGNATURE_INPUTS, TABLE
from lxmert_tf.serving.client.padding import check_integers, pad_boxes, pad_text, server_proof
from lxmert_tf.serving.version_folders import check_name

INT_INPUTS = tuple(name for name in SIGNATURE_INPUTS if TABLE[name].dtype == "int32")
_ASSERTION = "assertion failed: "
_UNEQUAL_ROWS = "equal 0th-dimension size"  # a batching server's error for one image with several questions


class ServingError(OSError):
    """An error answered by a server; `code` is gRPC's or HTTP's."""

    def __init__(self, message: str, code: Any = None):
        super().__init__(message)
        self.code = code


class InvalidRequestError(ServingError, ValueError):
    """The server rejected the request."""


class ModelNotFoundError(ServingError):
    """The server has no such model, version or label."""


class Unavailable(ServingError, ConnectionError):
    """There is no server, or it is not ready; retrying may help."""


class DeadlineExceeded(ServingError, TimeoutError):
    """The answer took longer than `timeout`."""


_AnyClient = TypeVar("_AnyClient", bound="Client")


class Client(abc.ABC):
    """A client for one model on a server.

    Args:
        server: "HOST:PORT".
        name: the model's name on the server.
        version: version number; by default the latest, or that of `label`.
        label: version label, such as "stable".
        timeout: seconds for a call, all its attempts together.
        retries: further attempts while the server is unavailable, after 0.1 s, 0.2 s, 0.4 s, ...
    """

    def __init__(
        self,
        server: str,
        name: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
    ):
        if "://" in server:
            raise ValueError(f"A server must be HOST:PORT without {server.partition('://')[0]}://, got {server!r}.")
        host, separator, port = server.rpartition(":")
        if not separator or not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"A server must be HOST:PORT, got {server!r}.")
        check_name(name)
        if label is not None:
            check_name(label, "A version label")
        if version is not None and label is not None:
            raise ValueError("Give a version or a label, not both.")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be a finite number of seconds above 0, got {timeout}.")
        if retries < 0:
            raise ValueError(f"retries must be 0 or more, got {retries}.")
        self.server, self.name, self.version, self.label = server, name, version, label
        self.timeout, self.retries = timeout, retries

    def __enter__(self: _AnyClient) -> _AnyClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connection, if one is kept."""

    # Questions

    def answer(
        self,
        questions: Sequence[str],
        visual_feats: ArrayLike,
        visual_pos: ArrayLike,
        visual_attention_mask: ArrayLike | None = None,
    ) -> list[list[Answer]]:
        """The best answers to each question, through `answer_text` of a model exported with --text.

        Args:
            questions: one per image.
            visual_feats: float[B, N, D], or a list of float[N, D] with different N.
            visual_pos: float[B, N, 4] likewise, boxes in 0..1.
            visual_attention_mask: int[B, N]. Default: 1 for each box there is.
        """
        questions = _questions(questions)
        visual = pad_boxes(visual_feats, visual_pos, visual_attention_mask)
        images = len(visual["visual_feats"])
        if images != len(questions):
            raise ValueError(
                f"Got {len(questions)} questions but {images} images: give each question its image, "
                "or use encode_image and answer_encoded."
            )
        return _answers(self.predict({"questions": questions, **visual}, "answer_text"))

    def answer_ids(
        self,
        text: Mapping[str, ArrayLike],
        visual_feats: ArrayLike,
        visual_pos: ArrayLike,
        visual_attention_mask: ArrayLike | None = None,
    ) -> list[list[Answer]]:
        """The best answers to tokenised questions, through `serving_default`.

        Args:
            text: `input_ids`, and if there are `attention_mask` and `token_type_ids`: int[B, T] or lists of lists.
            visual_feats, visual_pos, visual_attention_mask: as for `answer`.
        """
        visual = pad_boxes(visual_feats, visual_pos, visual_attention_mask)
        return _answers(self.predict({**pad_text(**text), **visual}))

    def encode_image(
        self, visual_feats: ArrayLike, visual_pos: ArrayLike, visual_attention_mask: ArrayLike | None = None
    ) -> dict[str, np.ndarray]:
        """Encodes images for `answer_encoded`, with any number of questions.

        Returns:
            vision_states float[B, N, H], visual_attention_mask int[B, N]
        """
        return self.predict(pad_boxes(visual_feats, visual_pos, visual_attention_mask), "encode_image")

    def answer_encoded(
        self, questions: Sequence[str] | Mapping[str, ArrayLike], encoded: Mapping[str, ArrayLike]
    ) -> list[list[Answer]]:
        """The best answers about encoded images: of one image, or of one for each question.

        Args:
            questions: strings, for models exported with --text, or `input_ids` and more as for `answer_ids`.
            encoded: from `encode_image`.
        """
        if isinstance(questions, Mapping):
            text: dict[str, Any] = pad_text(**questions)
            signature, count = "answer_encoded", len(text["input_ids"])
        else:
            text = {"questions": _questions(questions)}
            signature, count = "answer_text_encoded", len(text["questions"])
        missing = {"vision_states", "visual_attention_mask"} - set(encoded)
        if missing:
            raise ValueError(f"encoded must be the output of encode_image, but lacks {', '.join(sorted(missing))}.")
        images: dict[str, Any] = {**encoded, "visual_attention_mask": server_proof(encoded["visual_attention_mask"])}
        return self._answer_shared(text, images, count, signature)

    def answer_image(self, images: Any, questions: Sequence[str]) -> list[list[Answer]]:
        """The best answers about pictures, through `answer_image` of a model exported with --detector.

        Args:
            images: JPEG or PNG files, paths or bytes: one, or a list with one for each question, or of pictures with k
                questions each, those of a picture adjacent. For visual reasoning a list of pairs.
            questions: strings.
        """
        files, questions = _files(images), _questions(questions)
        if len(questions) % len(files):
            raise ValueError(f"Got {len(questions)} questions about {len(files)} images: it must be a multiple of it.")
        return self._answer_shared({"questions": questions}, {"images": files}, len(questions), "answer_image")

    def detect(self, images: Any) -> dict[str, np.ndarray]:
        """The regions of pictures, as `answer`, `answer_ids` and `encode_image` take them.

        Args:
            images: as of `answer_image`.

        Returns:
            visual_feats float[B, N, D], visual_pos float[B, N, 4], visual_attention_mask int[B, N]
        """
        return self.predict({"images": _files(images)}, "detect")

    def _answer_shared(self, text: dict, images: dict, count: int, signature: str) -> list[list[Answer]]:
        """The answers to `count` questions, whose images are repeated for servers that batch."""
        try:
            return _answers(self.predict({**text, **images}, signature))
        except InvalidRequestError as error:
            if _UNEQUAL_ROWS not in str(error):
                raise
        repeated = {name: np.repeat(value, count // len(value), axis=0) for name, value in images.items()}
        return _answers(self.predict({**text, **repeated}, signature))

    # Any signature

    def predict(self, inputs: Mapping[str, ArrayLike], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """The outputs of a signature by name; strings come as str.

        Args:
            inputs: arrays, or lists, by name.
            signature: its name.

        Raises:
            InvalidRequestError, ModelNotFoundError, Unavailable, DeadlineExceeded, ServingError
        """
        if not isinstance(inputs, Mapping):
            raise TypeError(f"inputs must be arrays by name, got {type(inputs).__name__}.")
        arrays = {name: _array(name, value) for name, value in inputs.items()}
        return self._retrying(lambda left: self._predict(arrays, signature, left))

    def versions(self) -> dict[int, str]:
        """The state of each version that the server knows, such as "AVAILABLE"."""
        return self._retrying(self._versions)

    def _retrying(self, attempt: Callable[[float], dict]) -> dict:
        """Calls with the time that is left, again after a growing pause while the server is unavailable."""
        deadline, pauses = time.monotonic() + self.timeout, [0.1 * 2**retry for retry in range(self.retries)]
        while True:
            try:
                return attempt(max(deadline - time.monotonic(), 0.001))
            except Unavailable:
                if not pauses or time.monotonic() + pauses[0] > deadline:
                    raise
                time.sleep(pauses.pop(0))

    @abc.abstractmethod
    def _predict(self, inputs: dict[str, np.ndarray], signature: str, timeout: float) -> dict[str, np.ndarray]: ...

    @abc.abstractmethod
    def _versions(self, timeout: float) -> dict[int, str]: ...

    def _failure(self, kind: type[ServingError], message: str, code: Any = None) -> ServingError:
        return kind(f"{self.server}, model {self.name}: {_sentence(message)}", code)


def _questions(questions: Sequence[str]) -> list[str]:
    """The questions as a list; TypeError if it is one text, or one is not text; ValueError if it is empty."""
    if isinstance(questions, str | bytes):
        raise TypeError(f"questions must be a list of texts, got one text: pass [{questions!r}].")
    questions = list(questions)
    for index, question in enumerate(questions):
        if not isinstance(question, str | bytes):
            raise TypeError(f"question {index} must be text, got {type(question).__name__}.")
    if not questions:
        raise ValueError("questions must not be empty.")
    return questions


def _files(images: Any) -> np.ndarray:
    """bytes[B] or bytes[B, 2], the content of files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no image, or the pairs are none.
    """
    images = list(images) if isinstance(images, list | tuple) else [images]
    pairs = [list(each) if isinstance(each, list | tuple) else [each] for each in images]
    sizes = sorted({len(pair) for pair in pairs})
    if sizes not in ([1], [2]):
        raise ValueError(f"images must be a list of files or of pairs of them, got {sizes or 'none'} in its rows.")
    files = np.empty((len(pairs), *sizes), object)
    for place, each in np.ndenumerate(np.array(pairs, object)):
        files[place] = bytes(each) if isinstance(each, bytes | bytearray) else Path(each).read_bytes()
    return files if sizes == [2] else files[:, 0]


def _array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        items = [item.encode() if isinstance(item, str) else item for item in array.ravel()]
        wrong = [item for item in items if not isinstance(item, bytes)]
        if wrong:
            raise TypeError(f"{name} must hold numbers or texts, got {type(wrong[0]).__name__}.")
        strings = np.empty(len(items), object)
        strings[:] = items
        return strings.reshape(array.shape)
    if name in INT_INPUTS and array.dtype.kind in "iub":
        check_integers(name, array)
        return array.astype("int32")
    return array.astype("float32") if array.dtype.kind == "f" else array


def _answers(outputs: Mapping[str, np.ndarray]) -> list[list[Answer]]:
    if "top_ids" not in outputs and "probabilities" in outputs:  # of visual reasoning
        rows = ([Answer(TRUTHS[i], float(row[i]), i) for i in (1, 0)] for row in outputs["probabilities"])
        return [sorted(row, key=lambda answer: -answer.score) for row in rows]
    if "top_ids" not in outputs:
        raise ServingError(f"The model returns {', '.join(sorted(outputs))} but no answers: use predict.")
    ids, scores = outputs["top_ids"], outputs["top_scores"]
    texts = outputs["top_answers"] if "top_answers" in outputs else np.full(ids.shape, None)
    return [
        [
            Answer(None if text is None else str(text), float(score), int(index))
            for text, score, index in zip(*row, strict=True)
        ]
        for row in zip(texts, scores, ids, strict=True)
    ]


def _sentence(message: str) -> str:
    """A server's message on one line, without the names of graph nodes."""
    text = message.split("\n\t")[0].strip()
    if text.startswith(_ASSERTION):  # [message] [value] [values of a vector]
        message, *values = text.removeprefix(_ASSERTION)[1:].removesuffix("]").split("] [")
        text = " ".join([message, *(f"[{value}]" if " " in value else value for value in values)])
    return "".join(letter if letter.isprintable() else " " for letter in text)
