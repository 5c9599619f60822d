"""What a server without Python computes is what Keras and PyTorch compute: every task, signature and size."""

import numpy as np
import pytest
from support.golden import assert_close
from support.models import flat
from support.serving import LABELS, REL, TASKS, pytorch_model, pytorch_outputs, random_inputs

import lxmert_tf
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.client import GrpcClient

SIZES = [(1, 1, 1), (3, 7, 5), (32, 20, 36), (1, 64, 100), (2, 64, 1)]  # examples, tokens, boxes
MASKS = ("attention_mask", "token_type_ids", "visual_attention_mask")


class Served:
    """A task's client, and its model in both frameworks."""

    def __init__(self, task, exports, server):
        self.client = GrpcClient(server["grpc"], task)
        self.keras = getattr(lxmert_tf, TASKS[task]).from_pretrained(exports / task)
        self.torch = pytorch_model(task, exports / task)
        self.images = self.keras.num_images
        self.extras = task in ("model", "reasoning")

    def inputs(self, examples, tokens, boxes, seed=0):
        return random_inputs(self.keras.config, examples, tokens, boxes, seed, self.images)

    def torch_outputs(self, inputs):
        options = {"output_hidden_states": True, "output_attentions": True} if self.extras else {}
        outputs = pytorch_outputs(self.torch, inputs, **options)
        for name, value in outputs.items():
            if self.images > 1 and name != "logits":  # a row per image -> per example
                outputs[name] = value.reshape(-1, self.images, *value.shape[1:])
        return outputs


@pytest.fixture(scope="module")
def served(exports, server):
    made = {}

    def get(task):
        if task not in made:
            made[task] = Served(task, exports, server)
        return made[task]

    yield get
    for each in made.values():
        each.client.close()


def assert_answers(got, wanted_logits):
    """Everything that a question answering signature gives follows from the logits."""
    assert set(got) == {"logits", "probabilities", "top_ids", "top_scores", "top_answers"}
    assert_close(got["logits"], wanted_logits, REL, "logits")
    probabilities = 1 / (1 + np.exp(-wanted_logits.astype("float64")))
    assert_close(got["probabilities"], probabilities, REL, "probabilities")
    assert got["top_ids"].dtype == np.int32
    order = np.argsort(-wanted_logits, axis=-1, kind="stable")[:, : got["top_ids"].shape[1]]
    np.testing.assert_array_equal(got["top_ids"], order)
    assert_close(got["top_scores"], np.take_along_axis(probabilities, order, -1), REL, "top_scores")
    np.testing.assert_array_equal(got["top_answers"], np.array(LABELS)[order])


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_serving_default_is_keras_and_pytorch_at_every_size(task, served):
    for sizes in SIZES:
        compare_serving_default(task, sizes, served(task))


def compare_serving_default(task, sizes, each):
    inputs = each.inputs(*sizes)
    got, keras, torch = each.client.predict(inputs), flat(each.keras(inputs)), each.torch_outputs(inputs)
    if task == "qa":
        assert_answers(got, keras["question_answering_score"])
        assert_answers(got, torch["question_answering_score"])
        return
    if task == "reasoning":
        logits = got["logits"].astype("float64")
        softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert_close(got.pop("probabilities"), softmax, REL, "probabilities")
    assert set(got) == set(torch)
    for name, value in torch.items():
        assert_close(got[name], value, REL, name)
    for name, value in keras.items():
        assert_close(got[name], value, REL, name)


@pytest.mark.parametrize("task", TASKS)
def test_without_masks_all_tokens_and_boxes_count(task, served):
    each = served(task)
    inputs = {name: value for name, value in each.inputs(3, 9, 6).items() if name not in MASKS}
    got, wanted = each.client.predict(inputs, "serving_default_unmasked"), each.torch_outputs(inputs)
    for name, value in wanted.items():
        assert_close(got["logits" if task == "qa" else name], value, REL, name)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize(("images", "questions"), [(1, 1), (1, 5), (3, 3), (2, 6)])
def test_encode_image_and_answer_encoded_are_the_one_shot_answer(images, questions, masked, served):
    each, suffix = served("qa"), "" if masked else "_unmasked"
    inputs = each.inputs(questions, 8, 7)
    visual = {name: value[:images] for name, value in inputs.items() if name in IMAGE_INPUTS}
    text = {name: value for name, value in inputs.items() if name not in IMAGE_INPUTS}
    if not masked:
        visual, text = ({n: v for n, v in part.items() if n not in MASKS} for part in (visual, text))
    encoded = each.client.predict(visual, "encode_image" + suffix)
    assert set(encoded) == {"vision_states", "visual_attention_mask"}
    assert encoded["visual_attention_mask"].dtype == np.int32
    if not masked:
        assert encoded.pop("visual_attention_mask").all()
    got = each.client.predict({**text, **encoded}, "answer_encoded" + suffix)
    every = {name: np.repeat(value, questions // images, axis=0) for name, value in visual.items()}
    assert_answers(got, each.torch_outputs({**text, **every})["question_answering_score"])


@pytest.mark.parametrize("task", ["qa", "reasoning"])
def test_questions_as_strings_are_the_tokenised_questions(task, exports, served):
    each = served(task)
    tokenizer = lxmert_tf.LxmertTokenizer.from_pretrained(exports / task)
    questions = ["What is in the picture?", "cafés", "", "the [MASK] color ?? xyz"]
    text = dict(tokenizer(questions, padding=True, return_tensors="np"))
    visual = {name: value for name, value in each.inputs(4, 5, 6).items() if name in IMAGE_INPUTS}
    got = each.client.predict({"questions": questions, **visual}, "answer_text")
    wanted = each.torch_outputs({**text, **visual})
    if task == "reasoning":
        assert_close(got["logits"], wanted["logits"], REL, "logits")
        return
    assert_answers(got, wanted["question_answering_score"])
    unmasked = {name: value for name, value in visual.items() if name not in MASKS}
    got = each.client.predict({"questions": questions, **unmasked}, "answer_text_unmasked")
    assert_answers(got, each.torch_outputs({**text, **unmasked})["question_answering_score"])
    encoded = each.client.predict(visual, "encode_image")
    got = each.client.predict({"questions": questions, **encoded}, "answer_text_encoded")
    assert_answers(got, wanted["question_answering_score"])


@pytest.mark.slow
def test_300_random_requests_are_what_pytorch_computes(served):
    each, rng = served("qa"), np.random.default_rng(3)
    for seed in range(300):
        inputs = each.inputs(*(int(rng.integers(1, most + 1)) for most in (8, 64, 100)), seed=seed)
        got = each.client.predict(inputs)
        assert_close(got["logits"], each.torch_outputs(inputs)["question_answering_score"], REL, f"logits {seed}")
