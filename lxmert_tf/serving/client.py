"""Clients of TensorFlow Serving for exported models: `RestClient`, which needs only NumPy, and `GrpcClient`.

Both pad texts and boxes of different number, send the masks, wait no longer than their deadline, try again while a
server is not there, and raise errors that say what the server said.

Example:
    client = RestClient("localhost:8501", "vqa")
    client.answer(["what color is the square?"], visual_feats, visual_pos)
    # [[Answer(text="red", score=0.93, id=17), ...]]
"""

import base64
import http.client
import json

import numpy as np

from lxmert_tf.serving.client_base import (
    Answer,
    Client,
    DeadlineExceeded,
    InvalidRequestError,
    ModelNotFoundError,
    ServingError,
    Unavailable,
)

__all__ = [
    "Answer",
    "Client",
    "DeadlineExceeded",
    "GrpcClient",
    "InvalidRequestError",
    "ModelNotFoundError",
    "RestClient",
    "ServingError",
    "Unavailable",
    "connect",
]


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
    client = RestClient(server, name, **options)  # costs nothing, and finds fault with the options
    if protocol == "rest" or (protocol == "auto" and _speaks_http(server)):
        return client
    return GrpcClient(server, name, **options)


def _speaks_http(server: str) -> bool:
    connection = http.client.HTTPConnection(server, timeout=2.0)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().getheader("Content-Type", "").startswith("application/json")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class RestClient(Client):
    """The client for TF Serving's REST port (8501); imports nothing but NumPy."""

    def close(self) -> None:
        """Does nothing: every call has a connection of its own."""

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
        except OSError as error:
            raise self._failure(Unavailable, f"no HTTP server answers there ({error})") from error
        except http.client.HTTPException as error:
            raise self._failure(ServingError, "what answers there speaks no HTTP; is it the gRPC port?") from error
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


def _to_json(array: np.ndarray):
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]


def _from_json(value) -> np.ndarray:
    array = np.array(value)
    return array.astype({"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype))


def _text(array: np.ndarray) -> np.ndarray:
    return np.vectorize(bytes.decode, otypes=[str])(array) if array.dtype == object else array
