"""lxmert_tf: `python ours.py WORK VARIANT BATCH [BOXES]`; the variants are graph, xla and default."""

import sys

import numpy as np
import tensorflow as tf
from worker import inputs, padded, pretraining_labels, questions, serve

from lxmert_tf import AdamW, LxmertConfig, TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel
from lxmert_tf.training.memory import share_arena

work, variant, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
jit_compile = variant == "xla"


def forward():
    model = TFLxmertModel(LxmertConfig())
    call = tf.function(lambda x: model(x), jit_compile=jit_compile, autograph=False)
    boxes = int(sys.argv[4]) if len(sys.argv) > 4 else 36
    given = {name: tf.constant(value) for name, value in inputs(batch, boxes=boxes).items()}
    return lambda: call(given).pooled_output.numpy()


def fit_step(model, x):
    """One step of `fit`, as its loop takes it, with AdamW and clipping."""
    options = {} if variant == "default" else {"jit_compile": jit_compile}
    model.compile(optimizer=AdamW(5e-5, global_clipnorm=5.0), **options)
    model.make_train_function()
    data = tf.data.Dataset.from_tensors(x).repeat()
    iterator = iter(data)
    return lambda: float(model.train_function(iterator)["loss"])


def training():
    share_arena()  # as `lxmert-tf train`
    labels = np.random.default_rng(1).integers(0, 3129, batch)
    model = TFLxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129))
    return fit_step(model, {**inputs(batch), "labels": labels})


def pretraining():
    share_arena()
    labels = pretraining_labels(batch)
    labels["masked_lm_labels"] = labels.pop("labels")
    return fit_step(TFLxmertForPreTraining(LxmertConfig()), {**inputs(batch), **labels})


def vqa():
    model = TFLxmertForQuestionAnswering(LxmertConfig(num_qa_labels=3129))
    texts, images = questions(batch)
    count = int(images[-1]) + 1
    picture = inputs(count)
    spec = tf.TensorSpec
    encode = tf.function(
        lambda f, p: model.encode_image(f, p)["vision_states"], autograph=False, jit_compile=jit_compile
    )
    answer = tf.function(
        lambda ids, mask, states: model.answer_encoded(ids, states, attention_mask=mask).question_answering_score,
        input_signature=[spec((None, None), "int64"), spec((None, None), "int64"), spec((None, 36, 768))],
        autograph=False,
        jit_compile=jit_compile,
    )
    order = np.argsort([len(text) for text in texts], kind="stable")
    features, boxes = tf.constant(picture["visual_feats"]), tf.constant(picture["visual_pos"])

    def step():
        states = tf.concat([encode(features[i : i + 16], boxes[i : i + 16]) for i in range(0, count, 16)], axis=0)
        for i in range(0, batch, 32):
            chosen = order[i : i + 32]
            ids, mask = padded([texts[j] for j in chosen], max(len(texts[j]) for j in chosen))
            answer(ids, mask, tf.gather(states, images[chosen])).numpy()

    return step


serve({"forward": forward, "training": training, "pretraining": pretraining, "vqa": vqa}[work]())
