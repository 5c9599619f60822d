"""transformers' Lxmert in PyTorch: `python transformers_torch.py SIZE VARIANT CASE...`.

The variants are eager, graphs (CUDA graphs) and compiled (with CUDA graphs); it has no attention by PyTorch's fused
kernel. Inference is with weights in bfloat16, training under autocast with the fused AdamW.
"""

from functools import cache

import numpy as np
import torch
from cuda_graphs import captured
from transformers import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel
from worker import ANSWERS, arguments, serve

from benchmarks.contenders.worker import inputs, padded, pretraining_labels, questions

SIZE, variant = arguments()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tensors(values):
    if isinstance(values, dict):
        return {name: tensors(value) for name, value in values.items()}
    return tuple(map(tensors, values)) if isinstance(values, tuple) else torch.from_numpy(values).to(DEVICE)


def compiled(function):
    return torch.compile(function, mode="reduce-overhead", dynamic=False) if variant == "compiled" else function


def recorded(step):
    return captured(step) if variant == "graphs" else step


def make(model_class, **changes):
    config = LxmertConfig(**changes, **SIZE.config)
    return model_class(config).to(DEVICE)


@cache
def backbone():
    return make(LxmertModel).eval().to(torch.bfloat16)


def half(values):
    return {name: value.to(torch.bfloat16) if value.is_floating_point() else value for name, value in values.items()}


def forward(batch):
    model, given = backbone(), half(tensors(inputs(batch)))
    call = compiled(lambda x: model(**x).pooled_output)
    return recorded(torch.no_grad()(lambda: call(given)))


def fit_step(model, given):
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=5e-5, fused=True, capturable=variant == "graphs")

    @compiled
    def loss_of(given):
        with torch.autocast(DEVICE, torch.bfloat16):
            return model(**given).loss

    def step():
        optimizer.zero_grad()
        loss = loss_of(given)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return loss.detach()

    return recorded(step)


def training(batch):
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, ANSWERS, batch)).to(DEVICE)
    model = make(LxmertForQuestionAnswering, num_qa_labels=ANSWERS)
    return fit_step(model, {**tensors(inputs(batch)), "labels": labels})


def pretraining(batch):
    return fit_step(make(LxmertForPreTraining), tensors({**inputs(batch), **pretraining_labels(batch)}))


def stream(count):
    """Every question with its image, padded to 20 tokens."""
    model = make(LxmertForQuestionAnswering, num_qa_labels=ANSWERS).eval().to(torch.bfloat16)
    call = compiled(lambda x: model(**x).question_answering_score)
    texts, images = questions(count)
    given = half(tensors(inputs(int(images[-1]) + 1)))
    batches = []
    for i in range(0, count, SIZE.question_batch):
        part = slice(i, i + SIZE.question_batch)
        batches.append(tensors((*padded(texts[part], SIZE.lengths[-1]), images[part])))

    @torch.no_grad()
    def step():
        return [
            call(
                {
                    "input_ids": ids,
                    "attention_mask": mask,
                    "visual_feats": given["visual_feats"][rows],
                    "visual_pos": given["visual_pos"][rows],
                }
            ).clone()
            for ids, mask, rows in batches
        ]

    return recorded(step)


def finish(result):
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak_memory():
    return torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None


serve({"forward": forward, "training": training, "pretraining": pretraining, "stream": stream}, finish, peak_memory)
