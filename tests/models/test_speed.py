"""What makes the models fast changes no number, and does what it is there for. Seconds are measured in benchmarks/."""

import keras
import numpy as np
from support.models import batch, tiny_model

from conversion.models import state_dict
from lxmert_tf import TFLxmertForQuestionAnswering, TFLxmertModel


def test_predict_traces_once_for_each_length_of_text():
    model = tiny_model()
    traces = []
    call = model.call
    model.call = lambda *args, **kwargs: (traces.append(1), call(*args, **kwargs))[1]
    for _ in range(3):
        for tokens in (4, 8):
            model.predict(batch(model, tokens=tokens), verbose=0)
    assert len(traces) <= 3  # the second length makes the trace general


def test_loading_draws_only_what_the_checkpoint_lacks(tmp_path, monkeypatch):
    tiny_model(TFLxmertModel).save_pretrained(tmp_path, format="hf-pt")
    drawn = []
    draw = keras.initializers.TruncatedNormal.__call__
    monkeypatch.setattr(
        keras.initializers.TruncatedNormal,
        "__call__",
        lambda self, shape, dtype=None: (drawn.append(tuple(shape)), draw(self, shape, dtype))[1],
    )
    TFLxmertModel.from_pretrained(tmp_path)
    assert drawn == []
    model = TFLxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert drawn == [(12, 24), (24, 5)]
    for name, value in state_dict(model).items():
        if name.endswith("weight"):
            assert np.any(value), name
    TFLxmertModel(model.config)
    assert len(drawn) > 20
