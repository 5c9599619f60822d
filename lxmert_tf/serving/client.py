"""Clients of TensorFlow Serving for exported models: `RestClient`, which needs only NumPy, and `GrpcClient`.

Both pad texts and boxes of different number, send the masks, wait no longer than their deadline, try again while a
server is not there, and raise errors that say what the server said.

Example:
    client = RestClient("localhost:8501", "vqa")
    client.answer(["what color is the square?"], visual_feats, visual_pos)
    # [[Answer(text="red", score=0.93, id=17), ...]]

Shapes: B examples, T tokens, N boxes, D feature width, H hidden units.
"""

import abc
import base64
import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lxmert_tf.serving.padding import pad_boxes, pad_text, server_proof

INT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "visual_attention_mask")
_UNEQUAL_ROWS = "equal 0th-dimension size"  # what a batching server says of one image with several questions


class ServingError(OSError):
    """What a server answered other than an answer; `code` is gRPC's or HTTP's."""

    def __init__(self, message: str, code=None):
        super().__init__(message)
        self.code = code


class InvalidRequestError(ServingError, ValueError):
    """The server found fault with the request."""


class ModelNotFoundError(ServingError):
    """The server has no such model, version or label."""


class Unavailable(ServingError, ConnectionError):
    """There is no server, or it is not ready; trying again may help."""


class DeadlineExceeded(ServingError, TimeoutError):
    """The answer took longer than `timeout`."""


class Answer(NamedTuple):
    """One of the best answers: its text (None for models exported without answers), score in 0..1, and id."""

    text: str | None
    score: float
    id: int


class Client(abc.ABC):
    """What both clients do.

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
        host, separator, port = server.rpartition(":")
        if not separator or not host or not port.isdigit():
            raise ValueError(f"A server must be HOST:PORT, got {server!r}.")
        if version is not None and label is not None:
            raise ValueError("Give a version or a label, not both.")
        self.server, self.name, self.version, self.label = server, name, version, label
        self.timeout, self.retries = timeout, retries

    # Questions

    def answer(
        self, questions: Sequence[str], visual_feats, visual_pos, visual_attention_mask=None
    ) -> list[list[Answer]]:
        """The best answers to each question, through `answer_text` of a model exported with --text.

        Args:
            questions: one per image.
            visual_feats: float[B, N, D], or a list of float[N, D] with different N.
            visual_pos: float[B, N, 4] likewise, boxes in 0..1.
            visual_attention_mask: int[B, N]. Default: 1 for each box there is.
        """
        visual = pad_boxes(visual_feats, visual_pos, visual_attention_mask)
        return _answers(self.predict({"questions": list(questions), **visual}, "answer_text"))

    def answer_ids(self, text: Mapping, visual_feats, visual_pos, visual_attention_mask=None) -> list[list[Answer]]:
        """The best answers to tokenised questions, through `serving_default`.

        Args:
            text: `input_ids`, and if there are `attention_mask` and `token_type_ids`: int[B, T] or lists of lists.
            visual_feats, visual_pos, visual_attention_mask: as for `answer`.
        """
        visual = pad_boxes(visual_feats, visual_pos, visual_attention_mask)
        return _answers(self.predict({**pad_text(**text), **visual}))

    def encode_image(self, visual_feats, visual_pos, visual_attention_mask=None) -> dict[str, np.ndarray]:
        """What `answer_encoded` takes, for any number of questions.

        Returns:
            vision_states float[B, N, H], visual_attention_mask int[B, N]
        """
        return self.predict(pad_boxes(visual_feats, visual_pos, visual_attention_mask), "encode_image")

    def answer_encoded(self, questions: Sequence[str] | Mapping, encoded: Mapping) -> list[list[Answer]]:
        """The best answers about encoded images: of one image, or of one for each question.

        Args:
            questions: strings, for models exported with --text, or `input_ids` and more as for `answer_ids`.
            encoded: from `encode_image`.
        """
        if isinstance(questions, Mapping):
            text, signature = pad_text(**questions), "answer_encoded"
            count = len(text["input_ids"])
        else:
            text, signature = {"questions": list(questions)}, "answer_text_encoded"
            count = len(text["questions"])
        encoded = {**encoded, "visual_attention_mask": server_proof(encoded["visual_attention_mask"])}
        try:
            return _answers(self.predict({**text, **encoded}, signature))
        except InvalidRequestError as error:
            if _UNEQUAL_ROWS not in str(error):
                raise
        repeated = {name: np.repeat(value, count // len(value), axis=0) for name, value in encoded.items()}
        return _answers(self.predict({**text, **repeated}, signature))

    # Any signature

    def predict(self, inputs: Mapping, signature: str = "serving_default") -> dict[str, np.ndarray]:
        """The outputs of a signature by name; strings come as str.

        Args:
            inputs: arrays, or lists, by name.
            signature: its name.

        Raises:
            InvalidRequestError, ModelNotFoundError, Unavailable, DeadlineExceeded, ServingError
        """
        inputs = {name: _array(name, value) for name, value in inputs.items()}
        return self._retrying(lambda left: self._predict(inputs, signature, left))

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

    def _failure(self, kind: type[ServingError], message: str, code=None) -> ServingError:
        return kind(f"{self.server}, model {self.name}: {_sentence(message)}", code)


class RestClient(Client):
    """The client for TF Serving's REST port (8501); imports nothing but NumPy."""

    def _predict(self, inputs, signature, timeout):
        columns = {name: _to_json(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        outputs = self._call("POST", f"{self._path()}:predict", body, timeout)["outputs"]
        if not isinstance(outputs, dict):  # of a signature with one output TF Serving gives no name
            outputs = {"output": outputs}
        return {name: _from_json(value) for name, value in outputs.items()}

    def _versions(self, timeout):
        states = self._call("GET", f"/v1/models/{self.name}", None, timeout)["model_version_status"]
        return {int(state["version"]): state["state"] for state in states}

    def _path(self) -> str:
        path = f"/v1/models/{self.name}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{self.label}"

    def _call(self, method: str, path: str, body: str | None, timeout: float) -> dict:
        connection = http.client.HTTPConnection(self.server, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except TimeoutError as error:
            raise self._failure(DeadlineExceeded, f"no answer within {self.timeout} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(Unavailable, f"no HTTP server answers there ({error})") from error
        finally:
            connection.close()
        try:
            content = json.loads(text)
        except ValueError:
            content = {"error": text[:200]}
        if response.status == 200:
            return content
        kinds = {
            400: InvalidRequestError,
            404: ModelNotFoundError,
            503: Unavailable,
            429: Unavailable,
            504: DeadlineExceeded,
        }
        raise self._failure(kinds.get(response.status, ServingError), content.get("error", text), response.status)


class GrpcClient(Client):
    """The client for TF Serving's gRPC port (8500), the faster one; needs the extra `serving`, and so TensorFlow."""

    def __init__(self, server: str, name: str, **options):
        super().__init__(server, name, **options)
        try:
            import grpc
            from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
        except ImportError as error:
            raise ImportError("GrpcClient needs tensorflow-serving-api: pip install 'lxmert-tf[serving]'.") from error
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(server, unlimited)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._status = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _predict(self, inputs, signature, timeout):
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        self._choose(request.model_spec)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._call(self._prediction.Predict, request, timeout).outputs
        return {name: _text(tf.make_ndarray(value)) for name, value in outputs.items()}

    def _versions(self, timeout):
        from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

        request = GetModelStatusRequest()
        request.model_spec.name = self.name
        statuses = self._call(self._status.GetModelStatus, request, timeout).model_version_status
        return {status.version: ModelVersionStatus.State.Name(status.state) for status in statuses}

    def _choose(self, spec) -> None:
        spec.name = self.name
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label

    def _call(self, method, request, timeout: float):
        import grpc

        kinds = {
            grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
            grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
            grpc.StatusCode.UNAVAILABLE: Unavailable,
            grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
            grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        }
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            kind = kinds.get(error.code(), ServingError)
            message = f"no answer within {self.timeout} s" if kind is DeadlineExceeded else error.details()
            raise self._failure(kind, message, error.code()) from error


def connect(server: str, name: str, protocol: str = "auto", **options) -> Client:
    """The client for a server's port, of which "auto" finds out what it speaks.

    Args:
        server, name, options: as for `Client`.
        protocol: "rest", "grpc" or "auto".

    Raises:
        Unavailable: nothing answers there.
        ModelNotFoundError: it has no such model.
    """
    if protocol not in ("auto", "rest", "grpc"):
        raise ValueError(f"protocol must be auto, rest or grpc, got {protocol!r}.")
    if protocol == "auto":
        protocol = "rest" if _speaks_http(server) else "grpc"
    return (RestClient if protocol == "rest" else GrpcClient)(server, name, **options)


def _speaks_http(server: str) -> bool:
    connection = http.client.HTTPConnection(server, timeout=2.0)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().getheader("Content-Type", "").startswith("application/json")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# Values


def _array(name: str, value) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        return np.array([item.encode() if isinstance(item, str) else item for item in array.ravel()], object).reshape(
            array.shape
        )
    if name in INT_INPUTS and array.dtype.kind in "iub":
        return array.astype("int32")
    return array.astype("float32") if array.dtype.kind == "f" else array


def _to_json(array: np.ndarray):
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]


def _from_json(value) -> np.ndarray:
    array = np.array(value)
    return array.astype({"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype))


def _text(array: np.ndarray) -> np.ndarray:
    return np.vectorize(bytes.decode, otypes=[str])(array) if array.dtype == object else array


def _answers(outputs: Mapping[str, np.ndarray]) -> list[list[Answer]]:
    if "top_ids" not in outputs:
        raise ServingError(f"The model gives {', '.join(sorted(outputs))} and no answers: use predict.")
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
    """What a server says, without the names of its graph's nodes."""
    lines = message.split("\n\t")[0].strip()
    return (
        lines.removeprefix("assertion failed: ").replace("[", "", 1).replace("]", "", 1)
        if "assertion" in lines
        else lines
    )
