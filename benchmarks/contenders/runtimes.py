"""transformers' Lxmert outside PyTorch: `python runtimes.py WORK VARIANT BATCH`, with WORK forward or vqa.

The variants are onnxruntime-float32 and -int8, and openvino-float32, -bfloat16 and -int8. Models are written once, to
$WRITTEN, by `python runtimes.py write FILE`, with the fixed sizes of the batch, which is the fastest.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from worker import inputs, padded, questions, serve

NAMES = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "token_type_ids")
QUESTIONS = 32  # in a batch of the stream


# Writing


def write(file: Path) -> None:
    """Writes a model to a path like forward-8/onnxruntime-int8.onnx, and those that it is made from."""
    runtime, precision = file.stem.split("-")
    if precision == "bfloat16":  # which is float32 computed otherwise
        return
    source = file.with_name("onnxruntime-float32.onnx")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        export(source)
    if runtime == "openvino":
        convert(source, file, precision)
    elif precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(source, file, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def export(file: Path) -> None:
    import torch
    from transformers import LxmertConfig, LxmertForQuestionAnswering, LxmertModel

    work, batch = file.parent.name.split("-")
    if work == "vqa":
        model = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129))
    else:
        model = LxmertModel(LxmertConfig())
    given = {name: torch.from_numpy(value) for name, value in inputs(int(batch)).items()}

    class Positional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            output = self.model(**dict(zip(NAMES, values, strict=True)))
            if work == "vqa":
                return output.question_answering_score
            return output.language_output, output.vision_output, output.pooled_output

    values = tuple(given[name] for name in NAMES)
    program = torch.onnx.export(Positional().eval(), values, dynamo=True, input_names=list(NAMES), opset_version=20)
    program.save(file)


def convert(source: Path, file: Path, precision: str) -> None:
    import openvino

    model = openvino.convert_model(source)
    if precision == "int8":
        import nncf

        _, batch = file.parent.name.split("-")
        model = nncf.quantize(
            model,
            nncf.Dataset([inputs(int(batch), seed=seed) for seed in range(4)]),
            subset_size=4,
            model_type=nncf.ModelType.TRANSFORMER,
        )
    openvino.save_model(model, file, compress_to_fp16=False)


# Running


def load(runtime: str, precision: str, folder: Path):
    """A function: arrays by name -> the outputs."""
    stored = "float32" if precision == "bfloat16" else precision
    file = folder / f"{runtime}-{stored}.{'xml' if runtime == 'openvino' else 'onnx'}"
    if not file.exists():
        subprocess.run([sys.executable, __file__, "write", str(file)], check=True, stdout=subprocess.DEVNULL)
    if runtime == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = {each.name for each in session.get_inputs()}
        return lambda given: session.run(None, {name: value for name, value in given.items() if name in names})
    import openvino

    hint = "bf16" if precision == "bfloat16" else "f32"
    compiled = openvino.Core().compile_model(
        file, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    )
    names = {port.get_any_name() for port in compiled.inputs}
    return lambda given: list(compiled({n: v for n, v in given.items() if n in names}).values())


def forward(run, batch: int):
    given = inputs(batch)
    return lambda: run(given)


def vqa(run, count: int):
    texts, images = questions(count)
    picture = inputs(int(images[-1]) + 1)

    def step():
        for i in range(0, count, QUESTIONS):
            ids, mask = padded(texts[i : i + QUESTIONS], 20)
            rows = images[i : i + QUESTIONS]
            given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            run(given | {name: picture[name][rows] for name in ("visual_feats", "visual_pos")})

    return step


def main() -> None:
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
        return
    work, variant, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    folder = Path(os.environ["WRITTEN"]) / f"{work}-{QUESTIONS if work == 'vqa' else size}"
    run = load(*variant.split("-"), folder)
    serve({"forward": forward, "vqa": vqa}[work](run, size))


if __name__ == "__main__":
    main()
