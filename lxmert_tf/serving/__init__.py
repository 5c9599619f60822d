"""Serving: SavedModels for TensorFlow Serving, what the server needs beside them, and clients.

The export itself is `lxmert_tf.serving.export.export`.
"""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_tf.serving.check import check_model as check_model
    from lxmert_tf.serving.client import Answer as Answer
    from lxmert_tf.serving.client import Client as Client
    from lxmert_tf.serving.client import DeadlineExceeded as DeadlineExceeded
    from lxmert_tf.serving.client import GrpcClient as GrpcClient
    from lxmert_tf.serving.client import InvalidRequestError as InvalidRequestError
    from lxmert_tf.serving.client import ModelNotFoundError as ModelNotFoundError
    from lxmert_tf.serving.client import RestClient as RestClient
    from lxmert_tf.serving.client import ServingError as ServingError
    from lxmert_tf.serving.client import Unavailable as Unavailable
    from lxmert_tf.serving.client import connect as connect
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.serving.check": ("check_model",),
            "lxmert_tf.serving.client": (
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
            ),
        },
    )
