"""Predicting encodes each image once, and answers as the whole model does."""

from types import SimpleNamespace

import numpy as np
from support.golden import REL64, assert_close
from support.models import tiny_config, tiny_model
from support.training import MemoryDataset

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.training.evaluation import answering_by_image


def test_questions_about_one_image_share_its_encoding(monkeypatch):
    model = tiny_model(TFLxmertForQuestionAnswering, dtype="float64")
    encoded = []
    encode_image = model.encode_image
    monkeypatch.setattr(model, "encode_image", lambda **images: encoded.append(images) or encode_image(**images))
    answer = answering_by_image(model)
    for images in ("bcbaacb", "aaaacc", "d"):
        x = MemoryDataset(tiny_config()).batch(0)[0]
        rows = np.array(["abcd".index(image) for image in images])
        x = {name: value[rows] if name in IMAGE_INPUTS else value[: len(rows)] for name, value in x.items()}
        scores = answer(x, [SimpleNamespace(img_id=image) for image in images])
        assert_close(scores, model(x).question_answering_score, REL64)
    assert encoded[0]["visual_feats"].shape[0] == 3  # traced with the first batch
