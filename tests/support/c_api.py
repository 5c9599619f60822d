"""TensorFlow's C API through ctypes: loads and runs SavedModels as TF Serving does, in a process without TensorFlow.

`libtensorflow_cc.so.2` of the tensorflow wheel holds the runtime, and the same loader that TF Serving calls. Nothing of
Python TensorFlow is executed: only its generated protobuf messages are read, under a stand-in package.
"""

import ctypes
import importlib.util
import sys
import types
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np


def _stand_in(name: str) -> Path:
    """Puts an empty package in `name`'s place whose submodules are found, and returns its folder."""
    folder = Path(importlib.util.find_spec(name).submodule_search_locations[0])
    if name in sys.modules:
        raise RuntimeError(f"{name} is imported already; the C API must run in a process without it.")
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(folder)]
    return folder


TENSORFLOW = _stand_in("tensorflow")

from tensorflow.core.protobuf import config_pb2, meta_graph_pb2  # noqa: E402

DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_, 19: np.float16}  # DT_FLOAT, ...
NUMBERS = {np.dtype(dtype): number for number, dtype in DTYPES.items()}
STRING = 7
INVALID_ARGUMENT = 3


class RuntimeFailure(Exception):
    """What the runtime's status says: `code` (those of gRPC) and message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class _Buffer(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class _Output(ctypes.Structure):
    _fields_ = (("oper", c_void_p), ("index", c_int))


class _TString(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint8 * 24),)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(
        str(TENSORFLOW / "libtensorflow_cc.so.2")
    )  # not RTLD_GLOBAL: its BoringSSL would replace OpenSSL
    tensor = c_void_p
    signatures = {
        "TF_NewStatus": (c_void_p,),
        "TF_DeleteStatus": (None, c_void_p),
        "TF_GetCode": (c_int, c_void_p),
        "TF_Message": (c_char_p, c_void_p),
        "TF_Version": (c_char_p,),
        "TF_NewGraph": (c_void_p,),
        "TF_DeleteGraph": (None, c_void_p),
        "TF_NewSessionOptions": (c_void_p,),
        "TF_SetConfig": (None, c_void_p, c_char_p, c_size_t, c_void_p),
        "TF_DeleteSessionOptions": (None, c_void_p),
        "TF_LoadLibrary": (c_void_p, c_char_p, c_void_p),
        "TF_LoadSessionFromSavedModel": (
            *(c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int),
            *(c_void_p, POINTER(_Buffer), c_void_p),
        ),
        "TF_CloseSession": (None, c_void_p, c_void_p),
        "TF_DeleteSession": (None, c_void_p, c_void_p),
        "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
        "TF_SessionRun": (
            *(None, c_void_p, c_void_p, POINTER(_Output), POINTER(tensor), c_int),
            *(POINTER(_Output), POINTER(tensor), c_int, c_void_p, c_int, c_void_p, c_void_p),
        ),
        "TF_AllocateTensor": (tensor, c_int, POINTER(c_int64), c_int, c_size_t),
        "TF_DeleteTensor": (None, tensor),
        "TF_TensorType": (c_int, tensor),
        "TF_NumDims": (c_int, tensor),
        "TF_Dim": (c_int64, tensor, c_int),
        "TF_TensorByteSize": (c_size_t, tensor),
        "TF_TensorData": (c_void_p, tensor),
        "TF_StringInit": (None, c_void_p),
        "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
        "TF_StringDealloc": (None, c_void_p),
        "TF_StringGetDataPointer": (c_void_p, c_void_p),
        "TF_StringGetSize": (c_size_t, c_void_p),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


TF = _library()


class _Status:
    """A TF_Status for one call; leaving the block raises what it says."""

    def __enter__(self) -> c_void_p:
        self.handle = c_void_p(TF.TF_NewStatus())
        return self.handle

    def __exit__(self, kind, error, trace) -> None:
        code, message = TF.TF_GetCode(self.handle), TF.TF_Message(self.handle)
        TF.TF_DeleteStatus(self.handle)
        if kind is None and code:
            raise RuntimeFailure(code, message.decode("utf-8", "replace"))


def load_text_ops() -> None:
    """Registers tensorflow-text's ops, which TF Serving has linked in."""
    spec = importlib.util.find_spec("tensorflow_text")  # finds, does not import
    for library in sorted((Path(spec.submodule_search_locations[0]) / "python" / "ops").glob("*.so")):
        with _Status() as status:
            TF.TF_LoadLibrary(str(library).encode(), status)


class SavedModel:
    """A SavedModel in a session.

    Args:
        path: the folder with saved_model.pb.
        threads: for the work inside one op; 0 leaves it to TensorFlow.
    """

    def __init__(self, path, threads: int = 0):
        config = config_pb2.ConfigProto(intra_op_parallelism_threads=threads).SerializeToString()
        options, self._graph, meta_graph = c_void_p(TF.TF_NewSessionOptions()), c_void_p(TF.TF_NewGraph()), _Buffer()
        with _Status() as status:
            TF.TF_SetConfig(options, config, len(config), status)
        tags = (c_char_p * 1)(b"serve")
        with _Status() as status:
            session = TF.TF_LoadSessionFromSavedModel(
                options, None, str(path).encode(), tags, 1, self._graph, ctypes.byref(meta_graph), status
            )
        self._session = c_void_p(session)
        TF.TF_DeleteSessionOptions(options)
        parsed = meta_graph_pb2.MetaGraphDef.FromString(ctypes.string_at(meta_graph.data, meta_graph.length))
        self.signatures = {name: s for name, s in parsed.signature_def.items() if not name.startswith("__")}

    def close(self) -> None:
        with _Status() as status:
            TF.TF_CloseSession(self._session, status)
        with _Status() as status:
            TF.TF_DeleteSession(self._session, status)
        TF.TF_DeleteGraph(self._graph)

    def run(self, inputs: dict[str, np.ndarray], signature: str = "serving_default") -> dict[str, np.ndarray]:
        """The outputs of a signature by name; strings are arrays of bytes.

        Raises:
            RuntimeFailure: with the runtime's own code and message.
        """
        if signature not in self.signatures:
            raise RuntimeFailure(INVALID_ARGUMENT, f"Serving signature name: {signature!r} not found in signature def")
        info = self.signatures[signature]
        missing, extra = sorted(set(info.inputs) - set(inputs)), sorted(set(inputs) - set(info.inputs))
        if missing or extra:  # the words of TF Serving
            raise RuntimeFailure(
                INVALID_ARGUMENT,
                f"input keys do not match the signature {signature!r}: missing {missing}, unexpected {extra}",
            )
        names = list(info.outputs)
        results = (c_void_p * len(names))()
        tensors = [_to_tensor(np.asarray(inputs[name])) for name in info.inputs]
        try:
            with _Status() as status:
                TF.TF_SessionRun(
                    *(self._session, None),
                    *(self._ends(info.inputs.values()), (c_void_p * len(tensors))(*tensors), len(tensors)),
                    *(self._ends(info.outputs.values()), results, len(names)),
                    *(None, 0, None, status),
                )
            return {name: _to_array(c_void_p(tensor)) for name, tensor in zip(names, results, strict=True)}
        finally:
            for tensor in (*tensors, *filter(None, results)):
                TF.TF_DeleteTensor(tensor)

    def _ends(self, infos) -> ctypes.Array:
        ends = []
        for info in infos:
            operation, _, index = info.name.rpartition(":")
            ends.append(_Output(TF.TF_GraphOperationByName(self._graph, operation.encode()), int(index)))
        return (_Output * len(ends))(*ends)


def _to_tensor(array: np.ndarray) -> c_void_p:
    if array.dtype.kind in "OSU":
        return _strings_to_tensor(array)
    array = np.ascontiguousarray(array)
    tensor = _allocate(NUMBERS[array.dtype], array.shape, array.nbytes)
    ctypes.memmove(TF.TF_TensorData(tensor), array.ctypes.data, array.nbytes)
    return tensor


def _strings_to_tensor(array: np.ndarray) -> c_void_p:
    size = ctypes.sizeof(_TString)
    tensor = _allocate(STRING, array.shape, array.size * size)
    start = TF.TF_TensorData(tensor)
    for index, item in enumerate(array.ravel()):
        item = item.encode() if isinstance(item, str) else bytes(item)
        place = c_void_p(start + index * size)
        TF.TF_StringInit(place)
        TF.TF_StringCopy(place, item, len(item))
    return tensor


def _allocate(dtype: int, shape: tuple[int, ...], nbytes: int) -> c_void_p:
    return c_void_p(TF.TF_AllocateTensor(dtype, (c_int64 * len(shape))(*shape), len(shape), nbytes))


def _to_array(tensor: c_void_p) -> np.ndarray:
    dtype, shape = TF.TF_TensorType(tensor), [TF.TF_Dim(tensor, axis) for axis in range(TF.TF_NumDims(tensor))]
    start, nbytes = TF.TF_TensorData(tensor), TF.TF_TensorByteSize(tensor)
    if dtype != STRING:
        return np.frombuffer(ctypes.string_at(start, nbytes), DTYPES[dtype]).reshape(shape).copy()
    size = ctypes.sizeof(_TString)
    items = np.empty(int(np.prod(shape)), object)
    for index in range(items.size):
        place = c_void_p(start + index * size)
        items[index] = ctypes.string_at(TF.TF_StringGetDataPointer(place), TF.TF_StringGetSize(place))
    return items.reshape(shape)
