"""Trains on one device and on two, and prints what came out as JSON: a process of its own, which has two devices.

Usage: python devices.py one|two [rate of dropout]
"""

import json
import sys
from contextlib import nullcontext

import keras
import numpy as np
import tensorflow as tf
from support.models import batch, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining
from lxmert_tf.training.distribution import make_strategy, prepare_for_fit

EXAMPLES = 8


def main(devices: str, dropout: float = 0.0) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy(mirrored=True) if devices == "two" else None
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    with strategy.scope() if strategy else nullcontext():
        keras.utils.set_random_seed(0)
        model = tiny_model(TFLxmertForPreTraining, dtype="float64", l_layers=0, r_layers=0, **rates)
        options = {"metrics": {"ans": "accuracy"}, "jit_compile": False, "run_eagerly": strategy is None}
        model.compile(optimizer=keras.optimizers.SGD(0.05), **options)
    x, y = batch(model, EXAMPLES), labels(model, EXAMPLES)
    y["ans"][: EXAMPLES // 2 + 1] = -100  # the first device has no answer at all, and other words are hidden in each
    y["matched_label"][3:] = -100
    if dropout:  # one example for each device, always the same: what differs is the masks
        x, y = keras.tree.map_structure(lambda a: np.repeat(a[-1:], 2 if strategy else 1, 0), (x, y))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(EXAMPLES)
    if strategy:
        prepare_for_fit(model, next(iter(data)))
    history = model.fit(data.repeat(), steps_per_epoch=1, epochs=3, verbose=0, shuffle=False).history
    evaluated = model.evaluate(data, verbose=0, return_dict=True)
    weights = [float(np.abs(weight).sum()) for weight in model.get_weights()]
    print(json.dumps({"history": history, "evaluated": evaluated, "weights": weights}))


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:]))
