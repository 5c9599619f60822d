"""lxmert_tf under the Keras backend of KERAS_BACKEND: `python ours.py SIZE VARIANT CASE...`.

The variants are compiled, with JAX, and eager, with PyTorch: there Keras copies numbers to the card within its
operations, which no CUDA graph can hold, and `torch.compile` takes minutes for a shape.
"""

from functools import cache

import keras
import numpy as np
from worker import ANSWERS, arguments, serve

from benchmarks.contenders.worker import inputs, padded, pretraining_labels, questions
from lxmert_tf import AdamW, LxmertConfig, TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel

SIZE, _ = arguments()
jax_backend = keras.backend.backend() == "jax"
if jax_backend:
    import jax
else:
    import torch


def tensors(values):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, values)


def compiled(model, function):
    """A function of tensors that calls the model, as it is run for inference."""
    if not jax_backend:
        return torch.no_grad()(function)
    values = [variable.value for variable in model.variables]

    def call(values, *args):
        with keras.StatelessScope(state_mapping=zip(model.variables, values, strict=True)):
            return function(*args)

    jitted = jax.jit(call)
    return lambda *args: jitted(values, *args)


def fit_step(model, batch):
    """A step of `fit`, as its loop takes it."""
    options = {} if jax_backend else {"jit_compile": False}
    model.compile(optimizer=AdamW(5e-5, global_clipnorm=5.0), **options)
    model.make_train_function()
    data = (tensors(batch),)
    if not jax_backend:
        model.train()
        return lambda: model.train_function([data])
    groups = (model.trainable_variables, model.non_trainable_variables)
    state = [[v.value for v in group] for group in (*groups, model.optimizer.variables, model.metrics_variables)]

    def step():
        nonlocal state
        logs, state = model.train_function(tuple(state), iter([data]))
        return logs

    return step


@cache
def backbone():
    return TFLxmertModel(LxmertConfig(**SIZE.config), dtype="bfloat16")


def forward(batch):
    model = backbone()
    call, given = compiled(model, lambda x: model(x).pooled_output), tensors(inputs(batch))
    return lambda: call(given)


def training(batch):
    config = LxmertConfig(num_qa_labels=ANSWERS, **SIZE.config)
    labels = np.random.default_rng(1).integers(0, ANSWERS, batch)
    model = TFLxmertForQuestionAnswering(config, dtype="mixed_bfloat16")
    return fit_step(model, {**inputs(batch), "labels": labels})


def pretraining(batch):
    model = TFLxmertForPreTraining(LxmertConfig(**SIZE.config), dtype="mixed_bfloat16")
    return fit_step(model, {**inputs(batch), **pretraining_labels(batch)})


def stream(count):
    """Images encoded once; questions sorted by length, and padded to the next of a few lengths."""
    model = TFLxmertForQuestionAnswering(LxmertConfig(num_qa_labels=ANSWERS, **SIZE.config), dtype="bfloat16")
    encode = compiled(model, lambda f, p: model.encode_image(f, p)["vision_states"])
    answer = compiled(model, lambda i, m, s: model.answer_encoded(i, s, attention_mask=m).question_answering_score)
    texts, images = questions(count)
    order = np.argsort([len(text) for text in texts], kind="stable")
    given = tensors(inputs(int(images[-1]) + 1))
    features, boxes = keras.ops.cast(given["visual_feats"], "bfloat16"), given["visual_pos"]
    batches = []
    for i in range(0, count, SIZE.question_batch):
        chosen = order[i : i + SIZE.question_batch]
        longest = max(len(texts[j]) for j in chosen)
        length = next(length for length in SIZE.lengths if length >= longest)
        batches.append(tensors((*padded([texts[j] for j in chosen], length), images[chosen])))

    def step():
        starts = range(0, len(features), SIZE.image_batch)
        parts = [slice(i, i + SIZE.image_batch) for i in starts]
        states = keras.ops.concatenate([encode(features[part], boxes[part]) for part in parts])
        return [answer(ids, mask, keras.ops.take(states, rows, axis=0)) for ids, mask, rows in batches]

    return step


def finish(result):
    if jax_backend:
        jax.block_until_ready(result)
    elif torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory():
    if jax_backend:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


serve({"forward": forward, "training": training, "pretraining": pretraining, "stream": stream}, finish, peak_memory)
