"""Clients of TensorFlow Serving for exported models: `RestClient`, which needs only NumPy, and `GrpcClient`.

Both pad texts and boxes, send the masks, keep a deadline, retry while a server is unavailable, and raise errors with
the server's message.

Examples:
    >>> client = connect("localhost:8501", "vqa")
    >>> client.answer(["what color is the square?"], visual_feats, visual_pos)
    [[Answer(text="red", score=0.93, id=17), ...]]
"""

import http.client
from typing import Any

from lxmert_tf.answers import Answer
from lxmert_tf.serving.client.base import (
    Client,
    DeadlineExceeded,
    InvalidRequestError,
    ModelNotFoundError,
    ServingError,
    Unavailable,
)
from lxmert_tf.serving.client.grpc import GrpcClient
from lxmert_tf.serving.client.rest import RestClient

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


def connect(server: str, name: str, protocol: str = "auto", **options: Any) -> Client:
    """The client for a server's port; "auto" finds out its protocol.

    Args:
        server, name, options: as for `Client`.
        protocol: "rest", "grpc" or "auto".

    Raises:
        Unavailable: nothing answers there.
        ModelNotFoundError: it has no such model.
    """
    if protocol not in ("auto", "rest", "grpc"):
        raise ValueError(f"protocol must be auto, rest or grpc, got {protocol!r}.")
    client = RestClient(server, name, **options)  # costs nothing, and checks the options
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
