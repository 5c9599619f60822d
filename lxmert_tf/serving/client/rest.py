"""The client for TF Serving's REST port; needs only NumPy."""

import base64
import http.client
import json
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


class RestClient(Client):
    """The client for TF Serving's REST port (8501); imports nothing but NumPy."""

    def close(self) -> None:
        """Does nothing: every call opens and closes a connection."""

    def _predict(self, inputs: dict[str, np.ndarray], signature: str, timeout: float) -> dict[str, np.ndarray]:
        columns = {name: _to_json(value) for name, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": columns})
        outputs = self._call("POST", f"{self._path()}:predict", body, timeout)["outputs"]
        if not isinstance(outputs, dict):  # TF Serving omits the name of a single output
            outputs = {"output": outputs}
        return {name: _from_json(value) for name, value in outputs.items()}

    def _versions(self, timeout: float) -> dict[int, str]:
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
            raise self._failure(Unavailable, f"no HTTP server answers ({error})") from error
        except http.client.HTTPException as error:
            raise self._failure(ServingError, "the server does not speak HTTP; is this the gRPC port?") from error
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


def _to_json(array: np.ndarray) -> list:
    if array.dtype != object:
        return array.tolist()
    return np.vectorize(lambda item: {"b64": base64.b64encode(item).decode()}, otypes=[object])(array).tolist()


def _from_json(value: Any) -> np.ndarray:
    array = np.array(value)
    return array.astype({"f": "float32", "i": "int32"}.get(array.dtype.kind, array.dtype))
