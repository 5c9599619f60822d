"""Golden results on the device: `python parity.py keras` under the backend of KERAS_BACKEND, or `python parity.py pt`.

Prints a line of JSON for each dtype and output: the largest error, relative to the tensor's largest magnitude, and what
is allowed. Products of float32 are of float32, not of TF32.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from support.golden import GOLDEN, REL32, REL64, REL_FLOAT32_SUM, expected, golden_inputs, golden_labels

TOLERANCES = {"float64": REL64, "float32": REL32, "bfloat16": 0.05}


def results_of_keras(dtype):
    """Entries of the backbone, the scores of answers, and all pretraining losses, of lxmert_tf."""
    import keras

    from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel

    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_default_matmul_precision", "highest")

    def load(model_class, folder):
        return model_class.from_pretrained(GOLDEN / folder, dtype=dtype)

    labels = golden_labels()
    labels["masked_lm_labels"] = labels.pop("labels")
    output = load(TFLxmertModel, "hf_pt_model")(**golden_inputs())
    answers = load(TFLxmertForQuestionAnswering, "hf_pt_qa")(**golden_inputs())
    pretraining = load(TFLxmertForPreTraining, "hf_pt_pretraining")(**golden_inputs(), **labels)
    return compared(output, answers, pretraining, lambda x: keras.ops.convert_to_numpy(keras.ops.cast(x, "float64")))


def results_of_pytorch(dtype):
    """The same of lxmert_pt."""
    import torch

    from lxmert_pt import LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(model_class, folder):
        return model_class.from_pretrained(GOLDEN / folder).eval().to(device, getattr(torch, dtype))

    def tensors(values):
        if isinstance(values, dict):
            return {name: tensors(value) for name, value in values.items()}
        return tuple(map(tensors, values)) if isinstance(values, tuple) else torch.from_numpy(values).to(device)

    with torch.no_grad():
        output = load(LxmertModel, "hf_pt_model")(**tensors(golden_inputs()))
        answers = load(LxmertForQuestionAnswering, "hf_pt_qa")(**tensors(golden_inputs()))
        pretraining = load(LxmertForPreTraining, "hf_pt_pretraining")(
            **tensors(golden_inputs()), **tensors(golden_labels())
        )
    return compared(output, answers, pretraining, lambda x: x.double().cpu().numpy())


def compared(output, answers, pretraining, to_numpy):
    """Pairs of what came and what was expected."""
    model = expected("model")
    names = ("language_output", "vision_output", "pooled_output")
    yield from ((name, to_numpy(output[name]), model[name]) for name in names)
    yield "answers", to_numpy(answers.question_answering_score), expected("qa")["question_answering_score"]
    yield "loss", to_numpy(pretraining.loss), expected("pretraining")["loss"]


def main() -> None:
    results = {"keras": results_of_keras, "pt": results_of_pytorch}[sys.argv[1]]
    for dtype, tolerance in TOLERANCES.items():
        for name, got, wanted in results(dtype):
            error = float(np.abs(got - wanted).max() / np.abs(wanted).max()) if np.isfinite(got).all() else None
            allowed = max(tolerance, REL_FLOAT32_SUM) if name == "loss" else tolerance
            print(json.dumps({"dtype": dtype, "output": name, "error": error, "allowed": allowed}), flush=True)


main()
