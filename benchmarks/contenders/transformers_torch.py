"""transformers' Lxmert in PyTorch: `python transformers_torch.py WORK VARIANT BATCH [BOXES]`.

The variants are eager, compiled, and for inference bfloat16 and int8, its dynamic quantization of linear layers.
"""

import sys
import warnings

import torch
from transformers import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel
from worker import inputs, padded, pretraining_labels, questions, serve

work, variant, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])


def compiled(function):
    return torch.compile(function) if variant == "compiled" else function


def prepared(model):
    """The model for inference, in the variant's precision."""
    model = model.eval()
    if variant == "bfloat16":
        return model.to(torch.bfloat16)
    if variant == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchao is to replace it
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    return compiled(model)


def tensors(values):
    if isinstance(values, dict):
        return {name: tensors(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(map(tensors, values))
    tensor = torch.from_numpy(values)
    return tensor.to(torch.bfloat16) if variant == "bfloat16" and tensor.is_floating_point() else tensor


@torch.inference_mode()
def forward():
    call = prepared(LxmertModel(LxmertConfig()))
    boxes = int(sys.argv[4]) if len(sys.argv) > 4 else 36
    given = tensors(inputs(batch, boxes=boxes))
    return torch.inference_mode()(lambda: call(**given).pooled_output.float().numpy())


def fit_step(model, given):
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    call = compiled(model.train())

    def step():
        optimizer.zero_grad()
        call(**given).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def training():
    labels = torch.randint(0, 3129, (batch,), generator=torch.Generator().manual_seed(1))
    model = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129))
    return fit_step(model, {**tensors(inputs(batch)), "labels": labels})


def pretraining():
    return fit_step(LxmertForPreTraining(LxmertConfig()), tensors({**inputs(batch), **pretraining_labels(batch)}))


def vqa():
    call = prepared(LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129)))
    texts, images = questions(batch)
    picture = inputs(int(images[-1]) + 1)

    @torch.inference_mode()
    def step():
        for i in range(0, batch, 32):
            ids, mask = padded(texts[i : i + 32], 20)
            rows = images[i : i + 32]
            given = {"input_ids": ids, "attention_mask": mask}
            given |= {name: picture[name][rows] for name in ("visual_feats", "visual_pos")}
            call(**tensors(given)).question_answering_score.float().numpy()

    return step


serve({"forward": forward, "training": training, "pretraining": pretraining, "vqa": vqa}[work]())
