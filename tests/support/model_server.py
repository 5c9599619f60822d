"""A small stand-in for tensorflow_model_server: the same protocols over the same loader, for tests on loopback.

`python model_server.py --model vqa=BASE/vqa` serves all versions of BASE/vqa over gRPC (PredictionService,
ModelService) and REST, and prints their ports as one line of JSON. It does not batch.
"""

import argparse
import json
import re
import sys
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from google.protobuf import text_format
from support import c_api
from support.c_api import INVALID_ARGUMENT, RuntimeFailure, SavedModel
from support.tensors import from_json, to_array, to_json, to_proto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.config import model_server_config_pb2

NOT_FOUND, UNAVAILABLE, DEADLINE_EXCEEDED = 5, 14, 4
CODES = {code.value[0]: code for code in grpc.StatusCode}
AVAILABLE = 30


class Models:
    """All versions of some models, loaded.

    Args:
        folders: BASE/NAME by name; labels come from BASE/models.config.
        unavailable: how many requests fail first, as those to a server that is starting.
        delay: seconds that every request takes at least.
    """

    def __init__(self, folders: dict[str, Path], unavailable: int = 0, delay: float = 0.0):
        self.unavailable, self.delay, self.labels, self.models = unavailable, delay, {}, {}
        for name, folder in folders.items():
            numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
            self.models[name] = {number: SavedModel(folder / str(number)) for number in numbers}
            config = folder.parent / "models.config"
            if config.is_file():
                parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
                self.labels.update({m.name: dict(m.version_labels) for m in parsed.model_config_list.config})

    def find(self, name: str, version: int | None = None, label: str | None = None) -> tuple[int, SavedModel]:
        if name not in self.models:
            raise RuntimeFailure(NOT_FOUND, f"Servable not found for request: Latest({name})")
        if label is not None:
            version = self.labels.get(name, {}).get(label)
            if version is None:
                raise RuntimeFailure(INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        version = max(self.models[name]) if version is None else version
        if version not in self.models[name]:
            raise RuntimeFailure(NOT_FOUND, f"Servable not found for request: Specific({name}, {version})")
        return version, self.models[name][version]

    def run(self, model: SavedModel, inputs: dict, signature: str, deadline: float | None = None) -> dict:
        if self.unavailable > 0:
            self.unavailable -= 1
            raise RuntimeFailure(UNAVAILABLE, "The model is not available yet")
        time.sleep(self.delay)
        if deadline is not None and time.monotonic() > deadline:
            raise RuntimeFailure(DEADLINE_EXCEEDED, "Deadline exceeded")
        return model.run(inputs, signature)


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: Models):
        self.models = models

    def Predict(self, request, context):
        left = context.time_remaining()
        deadline = None if left is None else time.monotonic() + left
        try:
            version, model = self.models.find(request.model_spec.name, **_wanted(request.model_spec))
            inputs = {name: to_array(proto) for name, proto in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            outputs = self.models.run(model, inputs, signature, deadline)
        except RuntimeFailure as failure:
            context.abort(CODES[failure.code], str(failure))
        response = PredictResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        response.model_spec.signature_name = signature
        for name in request.output_filter or outputs:
            response.outputs[name].CopyFrom(to_proto(outputs[name]))
        return response

    def GetModelMetadata(self, request, context):
        try:
            version, model = self.models.find(request.model_spec.name, **_wanted(request.model_spec))
        except RuntimeFailure as failure:
            context.abort(CODES[failure.code], str(failure))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response


class Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: Models):
        self.models = models

    def GetModelStatus(self, request, context):
        response = get_model_status_pb2.GetModelStatusResponse()
        if request.model_spec.name not in self.models.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {request.model_spec.name}")
        for version in self.models.models[request.model_spec.name]:
            response.model_version_status.add(version=version, state=AVAILABLE)
        return response


def _wanted(spec) -> dict:
    kind = spec.WhichOneof("version_choice")
    return {"version": spec.version.value} if kind == "version" else {"label": spec.version_label} if kind else {}


class Rest(BaseHTTPRequestHandler):
    models: Models
    protocol_version = "HTTP/1.1"
    path_pattern = re.compile(
        r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<rest>:predict|/metadata)?"
    )

    def do_GET(self):
        self._respond(self._describe)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(lambda wanted: self._predict(wanted, body))

    def _respond(self, answer):
        wanted = self.path_pattern.fullmatch(self.path)
        try:
            if wanted is None:
                raise RuntimeFailure(INVALID_ARGUMENT, f"Malformed request: {self.command} {self.path}")
            status, body = 200, answer(wanted)
        except RuntimeFailure as failure:
            # What TF Serving answers for each code
            status = {NOT_FOUND: 404, UNAVAILABLE: 503, DEADLINE_EXCEEDED: 504, INVALID_ARGUMENT: 400}.get(
                failure.code, 500
            )
            body = {"error": str(failure)}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _find(self, wanted):
        version = wanted["version"] and int(wanted["version"])
        return self.models.find(wanted["name"], version, wanted["label"])

    def _describe(self, wanted):
        self._find(wanted)
        if wanted["rest"] == "/metadata":
            raise RuntimeFailure(12, "metadata is served over gRPC here")
        states = [{"version": str(v), "state": "AVAILABLE"} for v in self.models.models[wanted["name"]]]
        return {"model_version_status": states}

    def _predict(self, wanted, body):
        _, model = self._find(wanted)
        try:
            request = json.loads(body)
        except ValueError:
            raise RuntimeFailure(INVALID_ARGUMENT, "JSON Parse error: The document is not JSON") from None
        signature = request.get("signature_name", "serving_default")
        if signature not in model.signatures:
            raise RuntimeFailure(INVALID_ARGUMENT, f"Serving signature name: {signature!r} not found in signature def")
        infos = model.signatures[signature].inputs
        by_row = "instances" in request
        columns = request["inputs"] if not by_row else {n: [row[n] for row in request["instances"]] for n in infos}
        if not isinstance(columns, dict):
            columns = {next(iter(infos)): columns}
        inputs = {n: from_json(v, infos[n].dtype, n) if n in infos else v for n, v in columns.items()}
        outputs = {n: to_json(v) for n, v in self.models.run(model, inputs, signature).items()}
        only = next(iter(outputs.values())) if len(outputs) == 1 else None
        if by_row:
            rows = only or [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
            return {"predictions": rows}
        return {"outputs": outputs if only is None else only}

    def log_message(self, *arguments):
        """Silence."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="append", metavar="NAME=FOLDER", required=True)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--unavailable", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    args = parser.parse_args()
    c_api.load_text_ops()
    folders = {name: Path(folder) for name, folder in (item.split("=", 1) for item in args.model)}
    models = Models(folders, args.unavailable, args.delay)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(args.threads), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(models), server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    Rest.models = models
    http = ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    http.daemon_threads = True
    if "tensorflow.python" in sys.modules:
        raise RuntimeError("TensorFlow was imported; the server must do without.")
    print(json.dumps({"grpc": grpc_port, "rest": http.server_address[1]}), flush=True)
    http.serve_forever()


if __name__ == "__main__":
    main()
