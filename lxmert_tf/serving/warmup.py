"""Warm-up requests, which TF Serving runs before it serves a version: writing, reading and replaying them."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import TABLE, TEXT_INPUTS

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MOST_RECORDS = 1000  # TF Serving refuses more
TOKENS, BOXES = 20, 36  # the paper's text length and boxes per image
QUESTION = "what is in the picture ?"
GREY = np.full((48, 64, 3), 128, "uint8")  # a picture


def write_warmup(folder: Path, name: str, signatures: Mapping, batch_sizes: list[int], config: LxmertConfig) -> int:
    """Writes a request for every signature and batch size, for pictures of the smallest size; returns how many.

    Args:
        folder: the version's.
        name: the model's.
        signatures: concrete functions by signature.
        batch_sizes: examples per request.
        config: the model's.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    requests = [
        (signature, size)
        for signature in sorted(signatures)
        for size in (batch_sizes[:1] if takes_images(signatures[signature]) else batch_sizes)
    ]
    if len(requests) > MOST_RECORDS:
        raise ValueError(
            f"{len(signatures)} signatures in {len(batch_sizes)} batch sizes are more than the {MOST_RECORDS} warm-up "
            "requests that TF Serving accepts: give fewer --batch-sizes."
        )
    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, size in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, spec in signatures[signature].structured_input_signature[1].items():
                request.inputs[key].CopyFrom(_filled(key, spec, size, config))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    return len(requests)


def takes_images(signature: Any) -> bool:
    """Whether a signature takes pictures, of which each takes seconds, however many rows a request has."""
    return "images" in signature.structured_input_signature[1]


def _filled(name: str, spec: tf.TensorSpec, batch_size: int, config: LxmertConfig) -> tensor_pb2.TensorProto:
    """A TensorProto that repeats one number, which takes little space in the file."""
    tokens = min(TOKENS, config.max_position_embeddings)
    free = iter((batch_size, tokens if name in TEXT_INPUTS else BOXES))
    proto = tensor_pb2.TensorProto(dtype=spec.dtype.as_datatype_enum)
    proto.tensor_shape.CopyFrom(tf.TensorShape([next(free) if n is None else n for n in spec.shape]).as_proto())
    if spec.dtype == tf.string:
        proto.string_val.append(tf.io.encode_jpeg(GREY).numpy() if name == "images" else QUESTION.encode())
    elif spec.dtype == tf.int32:
        proto.int_val.append(TABLE[name].default or 0)
    else:
        proto.float_val.append(0.5)
    return proto


def read_warmup(folder: str | os.PathLike) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(signature, inputs) of each request in a version folder.

    Raises:
        FileNotFoundError: there is no file of requests.
        ValueError: it is damaged, empty, too long, or has other requests.
    """
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    path = Path(folder) / WARMUP_FILE
    if not path.is_file():
        raise FileNotFoundError(f"No warm-up requests at {path}.")
    count = 0
    try:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            count += 1
            if count > MOST_RECORDS:
                raise ValueError(f"{path} has more than the {MOST_RECORDS} requests that TF Serving accepts.")
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise ValueError(f"Request {count} of {path} is not a Predict request.")
            request = log.predict_log.request
            inputs = {key: tf.make_ndarray(proto) for key, proto in request.inputs.items()}
            yield request.model_spec.signature_name or "serving_default", inputs
    except (tf.errors.DataLossError, DecodeError) as error:
        raise ValueError(f"{path} is damaged after {count} requests: {str(error).splitlines()[0]}") from error
    if not count:
        raise ValueError(f"{path} has no requests.")


def replay(folder: str | os.PathLike, run: Callable[[str, dict], Mapping]) -> dict[str, list[int]]:
    """Runs every warm-up request of a version; returns the batch sizes seen by signature.

    Args:
        folder: the version's.
        run: (signature, inputs) -> outputs by name.

    Raises:
        ValueError: the file is damaged, a request fails, or an answer is not finite or of another batch size.
    """
    seen: dict[str, list[int]] = {}
    for signature, inputs in read_warmup(folder):
        size = len(next(iter(inputs.values())))
        try:
            outputs = run(signature, inputs)
        except Exception as error:
            raise ValueError(f"The warm-up request of {size} to {signature} failed: {reason(error)}") from error
        for name, value in outputs.items():
            value = np.asarray(value)
            if len(value) != size:
                raise ValueError(f"{signature} returns {name} for {len(value)} examples instead of {size}.")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"{signature} returns {name} that is not finite for the warm-up request of {size}.")
        seen.setdefault(signature, []).append(size)
    return seen


def reason(error: Exception) -> str:
    """The message in TensorFlow's long errors: that of an assertion, or the first line."""
    assertion = re.search(r"assertion failed: (.*)", str(error))
    return (
        assertion[1]
        if assertion
        else next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    )
