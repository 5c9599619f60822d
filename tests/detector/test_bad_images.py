"""Pictures as they come are read rightly, or refused in one sentence that names them."""

import numpy as np
import pytest
from support.bad_images import BAD_IMAGES, Picture

from lxmert_tf.detector import BadImage, ImageProcessor
from lxmert_tf.detector.image_processor import read_image


def test_there_are_enough():
    assert len(BAD_IMAGES) > 40
    assert len({image.name.rpartition(".")[0] or image.name for image in BAD_IMAGES}) == len(BAD_IMAGES)


@pytest.mark.parametrize("image", BAD_IMAGES, ids=lambda image: image.name)
def test_read_or_refused(image: Picture, tmp_path):
    path = tmp_path / image.name
    image.write(path)
    if image.is_read:
        difference = read_image(path).astype(int) - image.verdict
        assert np.abs(difference).max() <= image.tolerance
        assert ImageProcessor()(path).size == image.verdict.shape[:2]
        return
    with pytest.raises((BadImage, FileNotFoundError), match=image.verdict) as caught:
        ImageProcessor()(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".") and "\n" not in message
