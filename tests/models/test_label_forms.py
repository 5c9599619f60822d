"""Labels, masks and padding mean the same to both frameworks."""

import numpy as np
import pytest
from support.golden import GOLDEN, REL64, assert_close, golden_inputs, golden_labels

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert_tf.input_table import IMAGE_INPUTS

torch = pytest.importorskip("torch")

from lxmert_pt import LxmertForPreTraining, LxmertForQuestionAnswering  # noqa: E402


def tensors(value):
    if isinstance(value, dict):
        return {name: tensors(each) for name, each in value.items()}
    return tuple(map(tensors, value)) if isinstance(value, tuple) else torch.from_numpy(value)


def padded(value: np.ndarray, boxes: int = 3) -> np.ndarray:
    """With more boxes, all 0."""
    return np.pad(value, [(0, 0), (0, boxes), *[(0, 0)] * (value.ndim - 2)])


def test_boxes_that_fill_up_an_image_do_not_count_and_masked_ones_with_labels_do_as_upstream():
    path = GOLDEN / "hf_pt_pretraining"
    ours = TFLxmertForPreTraining.from_pretrained(path, dtype="float64")
    theirs = LxmertForPreTraining.from_pretrained(path, dtype=torch.float64).eval()
    x, obj_labels = golden_inputs(), golden_labels()["obj_labels"]
    more = {name: padded(value) if name in IMAGE_INPUTS else value for name, value in x.items()}
    more_labels = {name: tuple(map(padded, pair)) for name, pair in obj_labels.items()}
    wanted = ours(**x, obj_labels=obj_labels).losses
    for name, value in ours(**more, obj_labels=more_labels).losses.items():
        assert_close(value, wanted[name], REL64, name)
    for inputs, given in ((x, obj_labels), (more, more_labels)):
        for name, value in theirs(**tensors(inputs), obj_labels=tensors(given)).losses.items():
            assert_close(value.detach(), wanted[name], REL64, name)
    del more["visual_attention_mask"]
    for name, value in ours(**more, obj_labels=more_labels).losses.items():
        if name != "feat_loss":  # of what is there upstream takes the mean, be it padding
            assert abs(float(value) - float(wanted[name])) > 0.1 * float(wanted[name])


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_answers_in_every_form(problem_type):
    path = GOLDEN / "hf_pt_qa"
    ours = TFLxmertForQuestionAnswering.from_pretrained(path, dtype="float64")
    theirs = LxmertForQuestionAnswering.from_pretrained(path, dtype=torch.float64).eval()
    ours.config.problem_type = theirs.config.problem_type = problem_type
    x, ids = golden_inputs(), golden_labels()["ans"]
    soft = np.random.default_rng(0).random((3, ours.config.num_qa_labels))
    soft[1], soft[2, 3:5] = 0, 1
    x["visual_attention_mask"] = x["visual_attention_mask"] * np.float32(0.3)
    seen = set()
    for labels in (ids, ids[:, None], ids.astype("int8"), soft):
        mine, its = ours(**x, labels=labels).loss, theirs(**tensors(x), labels=tensors(labels)).loss
        assert_close(mine, its.detach(), REL64)
        seen.add(round(float(mine), 9))
    assert len(seen) == 2


@pytest.mark.parametrize("value", [-1.0, 2.0, float("nan")])
def test_a_mask_outside_its_range_is_refused_by_both(value):
    path, x = GOLDEN / "hf_pt_qa", golden_inputs()
    x["attention_mask"] = x["attention_mask"].astype("float32")
    x["attention_mask"][1, 2] = value
    with pytest.raises(ValueError, match="attention_mask must hold 1 for tokens"):
        TFLxmertForQuestionAnswering.from_pretrained(path)(**x)
    with pytest.raises(ValueError, match="attention_mask must hold 1 for tokens"):
        LxmertForQuestionAnswering.from_pretrained(path)(**tensors(x))
