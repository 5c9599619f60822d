"""transformers' TFLxmert: `python transformers_tf.py WORK VARIANT BATCH [BOXES]`; the variants are graph and xla.

It has no question answering class, so its answer head is put together here as its users do: two dense layers over the
pooled output, GELU and normalisation between them.
"""

import sys

import numpy as np
import tensorflow as tf
import tf_keras
from transformers import LxmertConfig, TFLxmertModel
from worker import inputs, padded, questions, serve

work, variant, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
function = tf.function(jit_compile=variant == "xla")
model = TFLxmertModel(LxmertConfig())
head = tf_keras.Sequential(
    [
        tf_keras.layers.Dense(1536, activation="gelu"),
        tf_keras.layers.LayerNormalization(epsilon=1e-12),
        tf_keras.layers.Dense(3129),
    ]
)


def forward():
    call = function(lambda x: model(x))
    boxes = int(sys.argv[4]) if len(sys.argv) > 4 else 36
    given = {name: tf.constant(value) for name, value in inputs(batch, boxes=boxes).items()}
    return lambda: call(given).pooled_output.numpy()


def training():
    optimizer = tf_keras.optimizers.AdamW(5e-5, global_clipnorm=5.0)
    given = {name: tf.constant(value) for name, value in inputs(batch).items()}
    labels = tf.constant(np.random.default_rng(1).integers(0, 3129, batch))

    @function
    def step():
        with tf.GradientTape() as tape:
            logits = head(model(given, training=True).pooled_output)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        weights = model.trainable_weights + head.trainable_weights
        pairs = [(g, w) for g, w in zip(tape.gradient(loss, weights), weights, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)
        return loss

    head(model(given).pooled_output)
    optimizer.build(model.trainable_weights + head.trainable_weights)
    return lambda: float(step())


def vqa():
    texts, images = questions(batch)
    picture = inputs(int(images[-1]) + 1)
    call = function(lambda x: head(model(x).pooled_output))

    def step():
        for i in range(0, batch, 32):
            ids, mask = padded(texts[i : i + 32], 20)
            rows = images[i : i + 32]
            call(
                {
                    "input_ids": tf.constant(ids),
                    "attention_mask": tf.constant(mask),
                    "visual_feats": tf.constant(picture["visual_feats"][rows]),
                    "visual_pos": tf.constant(picture["visual_pos"][rows]),
                }
            ).numpy()

    return step


serve({"forward": forward, "training": training, "vqa": vqa}[work]())
