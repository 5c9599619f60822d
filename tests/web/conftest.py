"""A model, and a detector whose features it takes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.data import make_tokenizer
from support.detector import TINY, TINY_CONFIG, tiny_detector
from support.models import tiny_model

from lxmert_tf.detector import FasterRCNN
from lxmert_tf.explain.explanation import Explainer
from lxmert_tf.web.asking import see_photos

ANSWERS = ("red", "blue", "two", "<b>no</b>", "word1")


@pytest.fixture(scope="session")
def explainer(tmp_path_factory) -> Explainer:
    model = tiny_model(vocab_size=46, visual_feat_dim=TINY_CONFIG.feature_size, l_layers=1, r_layers=0)
    model.config.id2label = dict(enumerate(ANSWERS))
    return Explainer(model, make_tokenizer(tmp_path_factory.mktemp("vocabulary")))


@pytest.fixture(scope="session")
def see(explainer):
    """What finds the regions of pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FasterRCNN, "from_pretrained", lambda source: tiny_detector())  # compiled already
        return see_photos(explainer, "detector", **TINY)


@pytest.fixture(scope="session")
def photo(tmp_path_factory) -> str:
    """The file of a picture with a red circle on noise."""
    path = tmp_path_factory.mktemp("pictures") / "circle.png"
    picture = Image.fromarray(np.random.default_rng(0).integers(60, 250, (96, 128, 3), np.uint8))
    ImageDraw.Draw(picture).ellipse((40, 20, 90, 70), fill=(215, 40, 40))
    picture.save(path)
    return str(path)
