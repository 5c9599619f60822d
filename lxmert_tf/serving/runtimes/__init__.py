"""Other runtimes than TensorFlow Serving: OpenVINO, ONNX Runtime and LiteRT.

The export itself is `lxmert_tf.serving.runtimes.export.export`.
"""
