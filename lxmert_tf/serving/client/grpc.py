"""The client for TF Serving's gRPC port; needs the extra `serving`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lxmert_tf.serving.client.base import (
    Client,
    DeadlineExceeded,
    InvalidRequestError,
    ModelNotFoundError,
    ServingError,
    Unavailable,
)


class GrpcClient(Client):
    """The client for TF Serving's gRPC port (8500), the faster one; needs the extra `serving`, and so TensorFlow."""

    def __init__(self, server: str, name: str, **options: Any):
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

    def _predict(self, inputs: dict[str, np.ndarray], signature: str, timeout: float) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        self._choose(request.model_spec)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._call(self._prediction.Predict, request, timeout).outputs
        return {name: _text(tf.make_ndarray(value)) for name, value in outputs.items()}

    def _versions(self, timeout: float) -> dict[int, str]:
        from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

        request = GetModelStatusRequest()
        request.model_spec.name = self.name
        statuses = self._call(self._status.GetModelStatus, request, timeout).model_version_status
        return {status.version: ModelVersionStatus.State.Name(status.state) for status in statuses}

    def _choose(self, spec: Any) -> None:
        spec.name = self.name
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label

    def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:
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


def _text(array: np.ndarray) -> np.ndarray:
    return np.vectorize(bytes.decode, otypes=[str])(array) if array.dtype == object else array
