"""An answer depends on its own row: not on what shares its batch, on padding, or on the order of the boxes.

The models compute in float64: batches of other sizes add up in another order, which in float32 shows.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden import assert_close
from support.models import tiny_model
from support.serving import TASKS, WORDS, batched, random_inputs

import lxmert_tf
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.client.padding import pad_boxes, pad_text, server_proof
from lxmert_tf.serving.graph_inputs import SpecialIds
from lxmert_tf.serving.signatures import Options, Servable

PAD, CLS, SEP = 0, 2, 3  # in the tests' vocabulary
BOUND = 1e-6
MASKS = ("attention_mask", "visual_attention_mask")
QUESTIONS = [b"what is in the picture?", b"", "cafés".encode(), b"color [SEP] [CLS]", b"a b c d e f g"]

SIGNATURES = {
    "pretraining": ("serving_default",),
    "qa": ("serving_default", "answer_text", "encode_image", "answer_encoded", "answer_text_encoded"),
    "reasoning": ("serving_default", "answer_text"),
}
MASKED = [(task, name) for task, names in SIGNATURES.items() for name in names]
ALL = MASKED + [(task, f"{name}_unmasked") for task, name in MASKED]


def quick(signatures):
    """Those that take few seconds to trace: pretraining and questions as strings are for the slow test."""
    return [(task, name) for task, name in signatures if task != "pretraining" and "text" not in name]


def examples(number: int):
    return settings(max_examples=number, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What is served of a task, with or without questions as strings, made once."""
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = lxmert_tf.LxmertTokenizer(vocabulary)
    return functools.cache(lambda task, text: Served(task, tokenizer if text else None))


class Served:
    """A task's signatures, and random requests of one example for them."""

    def __init__(self, task: str, tokenizer):
        model = tiny_model(getattr(lxmert_tf, TASKS[task]), dtype="float64", l_layers=1)
        self.config, self.images = model.config, model.num_images
        self._servable = Servable(model, Options(tokenizer=tokenizer, special=SpecialIds(CLS, SEP, PAD)))
        self.signatures = self._servable.signatures

    def request(self, seed: int, tokens: int, boxes: int, twists: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        request = random_inputs(self.config, 1, tokens, boxes, seed, self.images)
        request["questions"] = np.array([QUESTIONS[rng.integers(len(QUESTIONS))]], object)
        for twist in twists:
            apply(twist, request, rng)
        return request

    def answer(self, name: str, *requests: dict[str, np.ndarray], proof: bool = False) -> dict[str, np.ndarray]:
        """The outputs of a signature in floating point, for requests that a server puts into one batch.

        Args:
            proof: clients send masks that begin with -1.
        """
        proved = server_proof if proof else np.asarray
        requests = [{**request, **{mask: proved(request[mask]) for mask in MASKS}} for request in requests]
        if "encoded" in name:
            encoded = [self.call("encode_image", request) for request in requests]
            requests = [{**request, **states} for request, states in zip(requests, encoded, strict=True)]
            for request in requests:
                request["visual_attention_mask"] = proved(request["visual_attention_mask"])
        outputs = self.call(name, batched(requests))
        return {key: value for key, value in outputs.items() if value.dtype.kind == "f"}

    def call(self, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = self.signatures[name].structured_input_signature[1]
        outputs = self.signatures[name](**{key: tf.constant(inputs[key], spec.dtype) for key, spec in specs.items()})
        return {key: value.numpy() for key, value in outputs.items()}


TWISTS = (
    *("no box", "no token", "every box", "every token", "masks begin with 0", "-1 in masks", "large features"),
    *("begins with zeros", "boxes of zeros at the end", "equal boxes", "looks filled up"),
)


def apply(twist: str, request: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    ids, mask, visual_mask = request["input_ids"], request["attention_mask"], request["visual_attention_mask"]
    features, boxes = request["visual_feats"], request["visual_pos"]
    match twist:
        case "no box":
            visual_mask[:] = 0
        case "no token":
            mask[:] = 0
        case "every box":
            visual_mask[:] = 1
        case "every token":
            mask[:] = 1
        case "masks begin with 0":
            mask[:, 0] = visual_mask[..., 0] = 0
        case "-1 in masks":
            mask[:], visual_mask[:] = rng.integers(-1, 2, mask.shape), rng.integers(-1, 2, visual_mask.shape)
        case "large features":
            features *= 1e6
        case "begins with zeros":
            features.flat[0] = boxes.flat[0] = 0
        case "boxes of zeros at the end":
            features[..., 1:, :], boxes[..., 1:, :], visual_mask[..., 1:] = 0, 0, 1
        case "equal boxes":
            features[:], boxes[:] = 0.5, 0.25
        case "looks filled up":
            features[..., -2:, :], boxes[..., -2:, :], visual_mask[..., -2:] = features.flat[0], boxes.flat[0], 1
            ids[:, 0], ids[:, -3:], mask[:] = CLS, [SEP, CLS, CLS][-ids.shape[1] :], 1


SEED, TOKENS, BOXES = st.integers(0, 2**20), st.integers(1, 7), st.integers(1, 6)
SOME_TWISTS = st.lists(st.sampled_from(TWISTS), max_size=3)


def assert_same(got: dict[str, np.ndarray], row: int, wanted: dict[str, np.ndarray]) -> None:
    """A row of a batch is the one row of `wanted`; what it is longer by is padding."""
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        place = (row, *(slice(size) for size in value.shape[1:]))
        assert_close(got[name][place], value[0], BOUND, name, scale=max(1.0, np.abs(value).max()))


def chosen(served, signature: tuple[str, str]) -> tuple[Served, str]:
    task, name = signature
    return served(task, "text" in name), name


def check_company(served, signature, seed, tokens, boxes, twists):
    """Rows of all kinds: each alone, and among 31 others, the first of them first and last."""
    each, name = chosen(served, signature)
    rng = np.random.default_rng(seed)
    kinds = [twists, *([twist] for twist in TWISTS)]
    kinds += [rng.choice(TWISTS, 2) for _ in range(32 - len(kinds))]
    rows = [each.request(seed + i, tokens, boxes, kind) for i, kind in enumerate(kinds)]
    together, backwards = each.answer(name, batched(rows)), each.answer(name, batched(rows[::-1]))
    for place in range(len(TWISTS) + 1):
        alone = each.answer(name, rows[place])
        assert_same(together, place, alone)
        assert_same(backwards, 31 - place, alone)


def company(signatures):
    return st.tuples(st.sampled_from(signatures), SEED, TOKENS, BOXES, SOME_TWISTS)


def check_filled_up(served, signature, seed, sizes, twists):
    """Requests of one example each, of clients that know nothing of -1: texts [CLS] ... [SEP]."""
    each, name = chosen(served, signature)
    requests = [each.request(seed + i, *size, twists if i == 0 else ()) for i, size in enumerate(sizes)]
    for request in requests:
        request["input_ids"][:, 0], request["input_ids"][:, -1] = CLS, SEP
    together = each.answer(name, *requests)
    for row, request in enumerate(requests):
        assert_same(together, row, each.answer(name, request))


def filled_up(signatures):
    sizes = st.lists(st.tuples(st.integers(2, 7), BOXES), min_size=2, max_size=4)
    return st.tuples(st.sampled_from(signatures), SEED, sizes, SOME_TWISTS)


@examples(25)
@given(drawn=filled_up(quick(ALL)))
def test_what_a_server_fills_up_changes_nothing(served, drawn):
    check_filled_up(served, *drawn)


def check_padded(served, signature, seed, groups, twists):
    """Requests of several examples, of the clients here: filled up with 0 by them, and then by the server."""
    each, name = chosen(served, signature)
    twists = [twist for twist in twists if twist != "-1 in masks"]  # which no client takes
    alone, requests = [], []
    for group in groups:
        boxes = [n for _, n in group] if each.images == 1 else [group[0][1]] * len(group)
        seeds = range(seed + len(alone), seed + len(alone) + len(group))
        rows = [each.request(s, t, n, twists) for s, (t, _), n in zip(seeds, group, boxes, strict=True)]
        columns = {key: [row[key][0] for row in rows] for key in rows[0]}
        text = {key: columns.pop(key) for key in ("input_ids", "attention_mask", "token_type_ids")}
        questions = np.array(columns.pop("questions"), object)
        visual = columns if each.images == 1 else {key: np.stack(value) for key, value in columns.items()}
        requests.append({"questions": questions, **pad_text(**text), **pad_boxes(**visual)})
        alone += rows
    together = each.answer(name, *requests, proof=True)
    for row, request in enumerate(alone):
        assert_same(together, row, each.answer(name, request, proof=True))


def padded(signatures):
    group = st.lists(st.tuples(TOKENS, BOXES), min_size=1, max_size=3)
    return st.tuples(st.sampled_from(signatures), SEED, st.lists(group, min_size=1, max_size=3), SOME_TWISTS)


@examples(25)
@given(drawn=padded(quick(MASKED)))
def test_padding_of_clients_and_servers_changes_nothing(served, drawn):
    check_padded(served, *drawn)


def check_permuted(served, signature, seed, tokens, boxes, twists):
    each, name = chosen(served, signature)
    request = each.request(seed, tokens, boxes, [twist for twist in twists if twist != "-1 in masks"])
    order = np.random.default_rng(seed).permutation(boxes)
    axis = 1 if each.images == 1 else 2
    moved = {key: np.take(v, order, axis) if key in IMAGE_INPUTS else v for key, v in request.items()}
    wanted = each.answer(name, request, proof=True)
    wanted = {key: value[:, order] if key.startswith("vision") else value for key, value in wanted.items()}
    assert_same(each.answer(name, moved, proof=True), 0, wanted)


def permuted(signatures):
    return st.tuples(st.sampled_from(signatures), SEED, TOKENS, BOXES, SOME_TWISTS)


@examples(25)
@given(drawn=permuted(quick(MASKED)))
def test_the_order_of_the_boxes_changes_nothing(served, drawn):
    check_permuted(served, *drawn)


def test_questions_about_shared_images_are_answered_from_their_own(served):
    each, logits = served("qa", False), "logits"
    images = [each.request(seed, 4, 5, twists) for seed, twists in enumerate([["no box"], ["looks filled up"], []])]
    texts = [each.request(10 + seed, 6, 5, ["no token"] * (seed == 4)) for seed in range(6)]
    encoded = each.call("encode_image", batched(images))
    together = each.call("answer_encoded", {**batched(texts), **encoded})
    for row, text in enumerate(texts):
        visual = {key: value for key, value in images[row // 2].items() if key in IMAGE_INPUTS}
        alone = each.call("serving_default", {**text, **visual})
        assert_same({logits: together[logits]}, row, {logits: alone[logits]})


@pytest.mark.slow
def test_every_signature_is_held_to_it(served):
    for task in SIGNATURES:
        names = {name for of, name in ALL if of == task}
        assert set(served(task, any("text" in name for name in names)).signatures) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "drawn"),
    [
        (check_company, company(ALL)),
        (check_filled_up, filled_up(ALL)),
        (check_padded, padded(MASKED)),
        (check_permuted, permuted(MASKED)),
    ],
    ids=["company", "filled up", "padded", "permuted"],
)
def test_all_of_it_in_many_examples(served, check, drawn):
    examples(100)(given(drawn)(lambda values: check(served, *values)))()
