"""Arguments that scripts written for `transformers` give to `from_pretrained` and `save_pretrained`, beyond our own.

Imports no framework.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

logger = logging.getLogger("lxmert_tf")


@dataclass(frozen=True)
class Argument:
    """What becomes of an argument: one of these says so.

    Args:
        alias: another name of this argument of ours.
        moot: it is left out, since what it asks for needs no asking or does not exist here.
        instead: it would change what is computed, and is refused; what to do in its place.
    """

    alias: str = ""
    moot: str = ""
    instead: str = ""


_ANY_FORMAT = Argument(moot="the format is read from the file itself")
_NO_CODE = Argument(moot="no file runs code here")
_TENSOR_BY_TENSOR = Argument(moot="tensors are loaded one by one, into memory")
_ONE_DEVICE = Argument(moot="the model is made where the framework makes its tensors")
_RESUMED = Argument(moot="downloads are always resumed")
_QUANTIZE = Argument(instead="load the model, then quantise it")
_FILE = Argument(instead="give the path of the file itself")

ARGUMENTS = {
    # Of both
    "use_auth_token": Argument(alias="token"),
    # Of from_pretrained
    "torch_dtype": Argument(alias="dtype"),
    "from_pt": _ANY_FORMAT,
    "from_tf": _ANY_FORMAT,
    "from_flax": _ANY_FORMAT,
    "weights_only": _NO_CODE,
    "trust_remote_code": _NO_CODE,
    "resume_download": _RESUMED,
    "mirror": Argument(moot="the environment variable HF_ENDPOINT names another Hub"),
    "low_cpu_mem_usage": _TENSOR_BY_TENSOR,
    "offload_state_dict": _TENSOR_BY_TENSOR,
    "_fast_init": Argument(moot="only what the checkpoint lacks is initialised"),
    "device_map": _ONE_DEVICE,
    "max_memory": _ONE_DEVICE,
    "offload_folder": _ONE_DEVICE,
    "offload_buffers": _ONE_DEVICE,
    "tp_plan": _ONE_DEVICE,
    "tp_size": _ONE_DEVICE,
    "attn_implementation": Argument(moot="there is one implementation of attention"),
    "use_flash_attention_2": Argument(moot="there is one implementation of attention"),
    "generation_config": Argument(moot="LXMERT generates no text"),
    "_from_auto": Argument(moot="the class is the one that was called"),
    "_from_pipeline": Argument(moot="the class is the one that was called"),
    "_commit_hash": Argument(moot="revision names the commit"),
    "load_in_8bit": _QUANTIZE,
    "load_in_4bit": _QUANTIZE,
    "quantization_config": _QUANTIZE,
    "variant": _FILE,
    "gguf_file": _FILE,
    "adapter_name": Argument(instead="merge the adapter into the checkpoint first"),
    "adapter_kwargs": Argument(instead="merge the adapter into the checkpoint first"),
    "load_weight_prefix": Argument(instead="load the model and use its backbone"),
    "key_mapping": Argument(instead="rename the tensors and give the state dict in place of the path"),
    "tf_to_pt_weight_rename": Argument(instead="rename the tensors and give the state dict in place of the path"),
    # Of save_pretrained
    "save_function": Argument(moot="files are written tensor by tensor"),
    "save_config": Argument(moot="config.json is always written"),
    "save_peft_format": Argument(moot="the whole model is written"),
    "use_temp_dir": Argument(moot="files appear whole or not at all"),
    "signatures": Argument(instead="call export, which takes an input_signature"),
}


def translate(function: str, arguments: Mapping[str, Any], own: Iterable[str]) -> dict[str, Any]:
    """`arguments` under our names, without those that ask for nothing; what is left out is logged in one line.

    Args:
        function: what was called, for messages.
        arguments: by name, beyond those in the function's signature.
        own: the names that are taken as they are, and those in the signature.

    Raises:
        TypeError: a name that is neither ours nor upstream's; the message names the nearest one.
        ValueError: an argument that would change what is computed and is not done here.
    """
    own, taken, moot = set(own), {}, {}
    for name, value in arguments.items():
        argument = ARGUMENTS.get(name)
        if name in own:
            taken[name] = value
        elif argument is None:
            near = get_close_matches(name, [*own, *ARGUMENTS], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise TypeError(f"{function} got an unexpected argument {name!r}{hint}")
        elif value is None or (value is False and not argument.alias):
            continue
        elif argument.alias:
            taken[argument.alias] = value
        elif argument.instead:
            raise ValueError(f"{function} does not take {name}={value!r}: {argument.instead}.")
        else:
            moot[name] = argument.moot
    if moot:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in moot.items())
        logger.warning("%s leaves out %s.", function, reasons)
    return taken
