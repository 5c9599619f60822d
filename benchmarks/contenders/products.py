"""The matrix products of a forward pass and nothing else: `python products.py forward graph BATCH`.

None waits for another, so that TensorFlow may run several at once, as a network cannot.
"""

import sys

import numpy as np
import tensorflow as tf
from worker import products, serve

rng = np.random.default_rng(0)
shapes = products(int(sys.argv[3]))
weights = [tf.Variable(rng.standard_normal((width, out), "float32")) for _, width, out in shapes]
inputs = {(rows, width): tf.constant(rng.standard_normal((rows, width), "float32")) for rows, width, _ in shapes}


@tf.function(autograph=False)
def multiply():
    results = [tf.matmul(inputs[rows, width], w) for (rows, width, _), w in zip(shapes, weights, strict=True)]
    return tf.add_n([result[0, 0] for result in results])


serve(lambda: multiply().numpy())
