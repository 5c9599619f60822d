"""Pictures in, answers out, in one graph: what Python and PyTorch compute, on a server without Python."""

import io
import json
import struct
import zlib
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.bad_images import BAD_IMAGES, write_bad_images
from support.data import write_tsv
from support.detector import IMAGES, TINY, TINY_CONFIG, tiny_detector
from support.golden import assert_close
from support.models import tiny_config, tiny_model
from support.pages import blocks
from support.serving import pytorch_model, pytorch_outputs, serving, write_checkpoint

import lxmert_pt.detector
from lxmert_tf import LxmertTokenizer, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.cli import main
from lxmert_tf.data import build_features, open_features
from lxmert_tf.data.features.regions import RegionFeatures
from lxmert_tf.detector import FasterRCNN, VisualQuestionAnsweringPipeline, make_pipeline
from lxmert_tf.detector.image_processor import ImageProcessor, read_image
from lxmert_tf.serving.check import check_model
from lxmert_tf.serving.client import GrpcClient, InvalidRequestError, RestClient
from lxmert_tf.serving.detection import Detection
from lxmert_tf.serving.export import export, load_detection
from lxmert_tf.serving.image_decoding import decode_image
from lxmert_tf.serving.image_resizing import resize_image, resized_size
from lxmert_tf.serving.metadata import read_metadata
from lxmert_tf.serving.signatures import Options, Servable
from lxmert_tf.serving.warmup import read_warmup, write_warmup

QUESTIONS = ["What is in the picture?", "is the cafe in color", "the color", "what"]
RNG = np.random.default_rng(0)
PATIENCE = 300  # seconds: a graph is prepared when it runs first, which takes long on a busy machine
COLOURS = np.kron(RNG.integers(0, 256, (6, 9, 3), "uint8"), np.ones((8, 8, 1), "uint8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints qa, reasoning and detector, and models/qa exported from the first and the last."""
    folder = tmp_path_factory.mktemp("pictures")
    tiny_detector().save_pretrained(folder / "detector")
    for task in ("qa", "reasoning"):
        sizes = {"visual_feat_dim": TINY_CONFIG.feature_size, "l_layers": 1, "r_layers": 0}
        write_checkpoint(task, folder / task, **sizes)
    export_with_detector(folder, "qa")
    return folder


def export_with_detector(folder, task: str) -> None:
    options = {"detector": folder / "detector", "pipeline": TINY, "batch_sizes": (1,)}
    export(folder / task, folder / "models", task, **options)


@pytest.fixture(scope="module")
def server(folder):
    with serving(f"qa={folder / 'models' / 'qa'}") as running:
        yield running


def pipeline_of(folder, task: str) -> VisualQuestionAnsweringPipeline:
    model = {"qa": TFLxmertForQuestionAnswering, "reasoning": TFLxmertForVisualReasoning}[task]
    tokenizer = LxmertTokenizer.from_pretrained(folder / task)
    return VisualQuestionAnsweringPipeline(model.from_pretrained(folder / task), tiny_detector(), tokenizer, **TINY)


@pytest.mark.slow
def test_the_whole_way(folder, server, tmp_path):
    """Four pictures by way of a file of features, on a server, and in PyTorch."""
    found = tiny_detector().detect(IMAGES, **TINY)
    assert len({len(regions) for regions in found}) > 1
    rows = [
        RegionFeatures(
            img_id=path.stem,
            img_h=regions.size[0],
            img_w=regions.size[1],
            objects_id=regions.object_ids.astype("int64"),
            objects_conf=regions.object_scores,
            attrs_id=regions.attribute_ids.astype("int64"),
            attrs_conf=regions.attribute_scores,
            boxes=regions.boxes,
            features=regions.features,
        )
        for path, regions in zip(IMAGES, found, strict=True)
    ]
    write_tsv(tmp_path / "features.tsv", rows)
    build_features(tmp_path / "features.tsv", tmp_path / "features.h5")
    visual = open_features(tmp_path / "features.h5").read([path.stem for path in IMAGES], labels=False)
    text = dict(LxmertTokenizer.from_pretrained(folder / "qa")(QUESTIONS, padding=True, return_tensors="np"))
    model = TFLxmertForQuestionAnswering.from_pretrained(folder / "qa")
    wanted = np.asarray(model(**text, **visual).question_answering_score)

    with GrpcClient(server["grpc"], "qa", timeout=PATIENCE) as client:
        contents = np.array([path.read_bytes() for path in IMAGES], object)
        served = client.predict({"images": contents, "questions": QUESTIONS}, "answer_image")
        detected = client.detect(IMAGES)
    assert_close(served["logits"], wanted, 1e-4)
    np.testing.assert_array_equal(detected["visual_attention_mask"].sum(axis=1), [len(regions) for regions in found])
    for row, regions in enumerate(found):
        assert_close(detected["visual_feats"][row, : len(regions)], regions.features, 1e-4)
        np.testing.assert_allclose(detected["visual_pos"][row, : len(regions)], regions.normalized_boxes, atol=1e-6)

    reference = lxmert_pt.detector.FasterRCNN.from_pretrained(folder / "detector").detect(IMAGES, **TINY)
    for row, regions in enumerate(reference):
        assert_close(regions.features, found[row].features, 1e-4)
        inputs = {"visual_feats": regions.features[None], "visual_pos": regions.normalized_boxes[None]}
        one = {name: value[row : row + 1] for name, value in text.items()}
        logits = pytorch_outputs(pytorch_model("qa", folder / "qa"), {**one, **inputs})["question_answering_score"]
        assert_close(logits, wanted[row : row + 1], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("client", [RestClient, GrpcClient])
def test_clients_answer_what_python_answers(client, folder, server):
    address = server["rest" if client is RestClient else "grpc"]
    with client(address, "qa", timeout=PATIENCE) as asked:
        got = asked.answer_image([IMAGES[0], IMAGES[3].read_bytes()], [*QUESTIONS[:2], *QUESTIONS[:2]])
        alone = asked.answer_image(str(IMAGES[0]), QUESTIONS[:1])
        encoded = asked.encode_image(**asked.detect([IMAGES[0]]))
        again = asked.answer_encoded(QUESTIONS[:2], encoded)
    wanted = pipeline_of(folder, "qa")([IMAGES[0], IMAGES[3]], QUESTIONS[:2])
    for answers, python in zip([*got, *again, *alone], [*wanted, *wanted[:2], wanted[0]], strict=True):
        assert_same(answers, python)


def assert_same(answers, python) -> None:
    """The answers of a server, the best first, are those of the pipeline in Python."""
    scores = {answer.text: answer.score for answer in python.answers}
    assert {answer.text: answer.score for answer in answers} == pytest.approx(scores, abs=1e-4)
    assert answers == sorted(answers, key=lambda answer: -answer.score)


@pytest.mark.slow
def test_pairs_on_a_server(folder, capsys):
    export_with_detector(folder, "reasoning")
    wanted = pipeline_of(folder, "reasoning")(IMAGES[:2], QUESTIONS[:2])
    with serving(f"reasoning={folder / 'models' / 'reasoning'}") as running:
        for client in (
            RestClient(running["rest"], "reasoning", timeout=PATIENCE),
            GrpcClient(running["grpc"], "reasoning", timeout=PATIENCE),
        ):
            with client as asked:
                for answers, python in zip(asked.answer_image([IMAGES[:2]], QUESTIONS[:2]), wanted, strict=True):
                    assert_same(answers, python)
        pair = ["--timeout", str(PATIENCE), "--photo", str(IMAGES[0]), "--photo", str(IMAGES[1])]
        assert main(["ask", QUESTIONS[0], "--server", running["rest"], "--name", "reasoning", *pair]) == 0
    assert {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()} == {"True", "False"}


class HashDetection(Detection):
    """Finds in a picture what depends on nothing but its bytes."""

    def _regions(self, picture):
        seed = tf.stack([tf.strings.to_hash_bucket_fast(picture[0], 1000), 0])
        boxes, width = self.pipeline.max_boxes, self.detector.config.feature_size
        return {
            "visual_feats": tf.random.stateless_uniform((boxes, width), seed),
            "visual_pos": tf.random.stateless_uniform((boxes, 4), seed),
            "visual_attention_mask": tf.ones(boxes, tf.int32),
        }


@pytest.mark.slow
def test_pairs(folder):
    """What answer_image gives is what answer_text gives of what detect gives."""
    model = TFLxmertForVisualReasoning.from_pretrained(folder / "reasoning")
    tokenizer = LxmertTokenizer.from_pretrained(folder / "reasoning")
    detector = type(tiny_detector())(TINY_CONFIG)
    detection = HashDetection(detector, make_pipeline("caffe", TINY_CONFIG, 3, 8), num_images=2)
    servable = Servable(model, Options(tokenizer=tokenizer, detection=detection))
    images, questions = tf.constant([["a", "b"], ["b", "c"]]), tf.constant(QUESTIONS[:2])
    found = servable.signatures["detect"](images=images)
    assert found["visual_feats"].shape == (2, 2, 8, 64)
    np.testing.assert_array_equal(found["visual_feats"][0, 1], found["visual_feats"][1, 0])
    wanted = servable.signatures["answer_text"](questions=questions, **found)["logits"]
    got = servable.signatures["answer_image"](images=images, questions=questions)["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
    one = servable.signatures["answer_image"](images=images[:1], questions=questions)["logits"]
    np.testing.assert_allclose(one[0], wanted[0], rtol=0, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"images must be \[batch, 2\], got shape"):
        servable.signatures["detect"](images=tf.constant(["a"]))


@pytest.mark.slow
def test_a_picture_without_regions_is_refused():
    detector = type(tiny_detector())(TINY_CONFIG)
    pipeline = make_pipeline("caffe", TINY_CONFIG, 3, 8, rpn_min_size=10_000)
    images = tf.constant([[IMAGES[0].read_bytes(), IMAGES[1].read_bytes()]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[images\[0, 0\] must have something that the detector"):
        Detection(detector, pipeline, num_images=2).find(images)


def test_clients_send_pairs_and_read_truths(monkeypatch):
    sent = []
    monkeypatch.setattr(
        RestClient, "_call", lambda self, method, path, body, timeout: sent.append(json.loads(body)) or reply
    )
    reply = {"outputs": {"logits": [[0.0, 2.0]], "probabilities": [[0.12, 0.88]]}}
    answers = RestClient("127.0.0.1:1", "reasoning").answer_image([[b"left\0", b"right"]], ["is it"])
    assert [(answer.text, answer.id) for answer in answers[0]] == [("True", 1), ("False", 0)]
    assert sent[0]["inputs"]["images"] == [[{"b64": "bGVmdAA="}, {"b64": "cmlnaHQ="}]]


@pytest.mark.slow
def test_calls_that_are_wrong(server):
    with GrpcClient(server["grpc"], "qa", timeout=PATIENCE) as client:
        for images, questions, message in (
            (IMAGES[:2], ["what"], "1 questions about 2 images: it must be a multiple"),
            ([IMAGES[:2], IMAGES[0]], ["what"], "a list of files or of pairs of them"),
            ([], ["what"], "a list of files or of pairs of them"),
            ([IMAGES[:2]], ["what"], r"images must be \[batch\], got shape \[1 2\]"),
        ):
            with pytest.raises(ValueError, match=message):
                client.answer_image(images, questions)
        with pytest.raises(FileNotFoundError):
            client.answer_image("nowhere.jpg", ["what"])
        contents = np.array([path.read_bytes() for path in IMAGES[:2]], object)
        with pytest.raises(InvalidRequestError, match="as many as images, or a multiple of it, got 3 2"):
            client.predict({"images": contents, "questions": QUESTIONS[:3]}, "answer_image")
        with pytest.raises(InvalidRequestError, match="images must not be empty"):
            client.predict({"images": contents[:0]}, "detect")


@pytest.mark.slow
def test_a_server_that_batches_gets_a_picture_for_every_question(server, monkeypatch):
    with GrpcClient(server["grpc"], "qa", timeout=PATIENCE) as client:
        wanted = client.answer_image(IMAGES[0], QUESTIONS[:3])
        whole = client._predict

        def batching(inputs, signature, timeout):
            if len({len(value) for value in inputs.values()}) > 1:
                raise InvalidRequestError("Batching session Run() input tensors must have equal 0th-dimension size")
            return whole(inputs, signature, timeout)

        monkeypatch.setattr(client, "_predict", batching)
        assert client.answer_image(IMAGES[0], QUESTIONS[:3]) == wanted


# What an export has beside the signatures


@pytest.mark.slow
def test_metadata(folder):
    made = read_metadata(folder / "models" / "qa" / "1")
    assert {"detect", "answer_image", "answer_text"} <= set(made["signatures"])
    assert not {"detect_unmasked", "answer_image_unmasked"} & set(made["signatures"])
    assert made["detector"]["checkpoint"] == "detector" and made["detector"]["pipeline"]["max_boxes"] == 8


def test_pictures_are_warmed_up_with_one(tmp_path):
    """Each takes seconds, however many rows a request has."""
    images = tf.TensorSpec([None], tf.string, "images")
    signature = tf.function(lambda **inputs: inputs).get_concrete_function(images=images)
    assert write_warmup(tmp_path, "qa", {"detect": signature}, [1, 4], tiny_config()) == 1
    ((name, inputs),) = read_warmup(tmp_path)
    assert name == "detect" and read_image(inputs["images"][0]).shape == (48, 64, 3)


@pytest.mark.slow
def test_an_export_is_compared_with_its_detector(folder, monkeypatch):
    from lxmert_tf.serving.check import TOLERANCE_OF_REGIONS, _compare_detector

    version, find = folder / "models" / "qa" / "1", tiny_detector().detect
    signatures, made = tf.saved_model.load(str(version)).signatures, read_metadata(version)
    monkeypatch.setattr(FasterRCNN, "detect", lambda self, pictures, pipeline: find(pictures, pipeline))  # compiled
    assert _compare_detector(signatures, made, folder / "detector") < TOLERANCE_OF_REGIONS
    monkeypatch.setattr(FasterRCNN, "detect", lambda self, pictures, pipeline: find([IMAGES[0]], pipeline))
    assert _compare_detector(signatures, made, folder / "detector") > 100 * TOLERANCE_OF_REGIONS
    assert _compare_detector(signatures, {**made, "detector": None}, folder / "detector") is None


@pytest.mark.slow
def test_check(folder, monkeypatch):
    lines = []
    check = partial(check_model, folder / "models", "qa", folder / "qa", lines.append, detector=folder / "detector")
    assert check() and "sound" in lines[0] and "equal to the detector within" in lines[0]
    signatures = read_metadata(folder / "models" / "qa" / "1")["signatures"]
    monkeypatch.setattr("lxmert_tf.serving.check.replay", lambda *_: {name: [1] for name in signatures})
    monkeypatch.setattr("lxmert_tf.serving.check._compare_detector", lambda *_: 2e-4)
    assert not check() and "finds other regions than" in lines[1]


@pytest.mark.slow
def test_what_cannot_be_exported(folder):
    for model, source, said in (
        (tiny_model(TFLxmertModel), "detector", "--detector is for models that answer; TFLxmertModel does not"),
        (tiny_model(), "detector", "are 64 wide, but visual_feat_dim of the model is 9"),
        (tiny_model(), "qa", "holds an LXMERT model, not a detector"),
    ):
        with pytest.raises(ValueError, match=said):
            load_detection(folder / source, model)


# Commands


@pytest.mark.slow
def test_ask_with_photos(folder, server, capsys):
    options = ["--server", server["grpc"], "--name", "qa", "--timeout", str(PATIENCE)]
    options += ["--photo", str(IMAGES[0]), "--json"]
    assert main(["ask", QUESTIONS[0], *options]) == 0
    (asked,) = json.loads(capsys.readouterr().out)
    (wanted,) = pipeline_of(folder, "qa")(IMAGES[0], QUESTIONS[0])
    assert [answer["text"] for answer in asked["answers"]] == [answer.text for answer in wanted.answers]
    assert main(["ask", QUESTIONS[0], *options, "--tokenizer", str(folder / "qa")]) == 0
    (tokenised,) = json.loads(capsys.readouterr().out)
    assert [answer["text"] for answer in tokenised["answers"]] == [answer.text for answer in wanted.answers]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give a photo (--photo FILE), or an image of a file of features"),
        (["--photo", "a.jpg", "--features", "a.h5", "--image", "1"], "Give a photo"),
        (["--features", "a.h5"], "Give a photo"),
        (["--photo", "a.jpg"] * 3, "--photo is for one file, or two for visual reasoning, got 3"),
    ],
)
def test_ask_without_one_image(options, message, capsys):
    assert main(["ask", "what", "--server", "127.0.0.1:1", "--name", "qa", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_numbers_of_a_pipeline_without_a_detector(folder, capsys, tmp_path):
    assert main(["export", str(folder / "qa"), str(tmp_path), "--name", "x", "--boxes", "8"]) == 2
    assert "have no effect without --detector" in capsys.readouterr().err


# The graph's own steps


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """EXIF of some entries, the last of which turns a picture."""
    entries = [(0x010F, 2, 4, 0x63626100), (0x0112, kind, 1, orientation)]
    rows = b""
    for tag, of, count, value in entries:
        rows += struct.pack(f"{order}HHI", tag, of, count)
        rows += struct.pack(f"{order}HH" if of == 3 else f"{order}I", *((value, 0) if of == 3 else (value,)))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", len(entries)) + rows + bytes(4)


PICTURE = Image.fromarray(COLOURS)
JPEG, PNG = encoded(PICTURE), encoded(PICTURE, "PNG")
READ = {
    "JPEG": JPEG,
    "progressive": encoded(PICTURE, progressive=True, quality=30),
    "grey JPEG": encoded(PICTURE.convert("L")),
    "CMYK": encoded(PICTURE.convert("CMYK")),
    "4:4:4": encoded(PICTURE, subsampling=0),
    "PNG": PNG,
    "grey PNG": encoded(PICTURE.convert("L"), "PNG"),
    "grey with alpha": encoded(PICTURE.convert("LA"), "PNG"),
    "alpha": encoded(Image.fromarray(np.dstack([COLOURS, COLOURS[:, :, 0]])), "PNG"),
    "1 bit": encoded(PICTURE.convert("1"), "PNG"),
    "palette": encoded(PICTURE.quantize(16), "PNG", transparency=bytes(range(16))),
    "16 bit": encoded(Image.fromarray(COLOURS[:, :, 0].astype("uint16") * 256 + 200), "PNG"),
    **{f"JPEG turned {number}": encoded(PICTURE, exif=exif(number)) for number in range(10)},
    **{f"PNG turned {number}": encoded(PICTURE, "PNG", exif=exif(number)) for number in (3, 6)},
    "big-endian EXIF": encoded(PICTURE, exif=exif(6, ">")),
    "EXIF with a long": encoded(PICTURE, exif=exif(8, kind=4)),
    "damaged EXIF": encoded(PICTURE, exif=b"Exif\0\0II*\0\xff\xff"),
    "a comment before": JPEG[:2] + b"\xff\xff\xfe\0\x06abcd" + JPEG[2:],
    "bytes after": PNG + bytes(9),
}


@pytest.fixture(scope="module")
def decode():
    spec = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda content: decode_image(content, 10_000), input_signature=spec, autograph=False)


@pytest.mark.parametrize("kind", READ)
def test_files_are_read_as_pillow_reads_them(kind, decode):
    np.testing.assert_array_equal(decode(READ[kind]), read_image(READ[kind]))


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


REFUSED = {
    "empty": (b"", "must be a JPEG or PNG file, got something else, of 0 bytes"),
    "text": (b"not a picture", "must be a JPEG or PNG file, got something else, of 13 bytes"),
    "GIF": (encoded(PICTURE, "GIF"), "must be a JPEG or PNG file"),
    "JPEG cut in its header": (JPEG[:20], "is cut short or damaged, of 20 bytes"),
    "JPEG cut": (JPEG[:-100], "is cut short or damaged"),
    "PNG cut": (PNG[: len(PNG) // 2], "is cut short or damaged"),
    "PNG with a wrong checksum": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "is cut short or damaged"),
    "many pixels": (png_of(60_000, 60_000), "must have at most 89,478,485 pixels, got 60000x60000"),
    "no pixels": (png_of(0, 60_000), "is cut short or damaged"),
    "a column": (encoded(Image.new("RGB", (1, 500)), "PNG"), "less than 3 pixels in one direction, got 1x500"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_bad_files_are_refused_in_words_and_the_server_goes_on(kind, server):
    content, message = REFUSED[kind]
    with GrpcClient(server["grpc"], "qa", timeout=PATIENCE) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.answer_image([PNG, content], ["what", "what"])
        assert "images[1] must " in str(caught.value)
        assert message in str(caught.value) and "node" not in str(caught.value)
    with pytest.raises(InvalidRequestError) as caught:
        RestClient(server["rest"], "qa", timeout=PATIENCE).detect(content)
    assert message in str(caught.value) and caught.value.code == 400


@pytest.mark.slow
def test_pictures_as_they_come_are_read_as_in_python_or_refused(server, decode, tmp_path):
    client, read = RestClient(server["rest"], "qa", timeout=PATIENCE), 0
    for picture, path in zip(BAD_IMAGES, write_bad_images(tmp_path), strict=True):
        if not path.is_file() or path.is_symlink():
            continue  # the client says of these what Python does
        content = path.read_bytes()
        if picture.is_read and content.startswith((JPEG[:3], PNG[:8])):
            np.testing.assert_array_equal(decode(content), read_image(content), picture.name)
            read += 1
            continue
        with pytest.raises(InvalidRequestError) as caught:
            client.detect(content)
        assert str(caught.value).count("\n") == 0 and "node" not in str(caught.value), picture.name
    assert read > 20


@pytest.mark.parametrize("name", ["caffe", "detectron2", "huggingface"])
def test_pictures_are_resized_as_in_python(name):
    pipeline = make_pipeline(name, TINY_CONFIG, min_size=64, max_size=100)
    spec = [tf.TensorSpec([None, None, 3], tf.uint8)]
    resize = tf.function(lambda image: resize_image(image, TINY_CONFIG, pipeline), input_signature=spec)
    for height, width in ((97, 143), (64, 64), (30, 20), (400, 333), (13, 200), (360, 640)):
        image = RNG.integers(0, 256, (height, width, 3), "uint8")
        got, wanted = resize(image), ImageProcessor(TINY_CONFIG, pipeline)(image)
        np.testing.assert_allclose(got.pixels, wanted.pixels, rtol=0, atol=3e-5)  # the last bit of 255
        np.testing.assert_array_equal(got.scales, np.float32(wanted.scales))
        assert tuple(got.picture_size.numpy()) == wanted.size


@pytest.mark.parametrize("name", ["caffe", "huggingface"])
def test_sizes_are_rounded_as_in_python(name):
    from lxmert_tf.detector.image_processor import resized_size as wanted

    pipeline = make_pipeline(name, TINY_CONFIG, min_size=600, max_size=1000)
    spec = [tf.TensorSpec([2], tf.int32)]
    resize = tf.function(lambda size: resized_size(size, pipeline), input_signature=spec, autograph=False)
    for size in [[360, 640], [640, 480], *RNG.integers(1, 3000, (300, 2)).tolist()]:
        new, scales = resize(np.int32(size))
        assert (*new.numpy(), tuple(scales.numpy())) == wanted(*size, pipeline)


@pytest.mark.slow
def test_the_page_on_serving(folder, server, tmp_path, monkeypatch):
    """The clients of docs/serving.md."""
    monkeypatch.chdir(tmp_path)
    Image.open(IMAGES[0]).convert("RGB").save("cat.jpg")
    ((_, example),) = blocks("docs/serving.md", "python")
    example = example.replace("localhost:8501", server["rest"]).replace('"vqa"', '"qa"').replace("=5,", f"={PATIENCE},")
    rng = np.random.default_rng(0)
    features = rng.random((1, 3, TINY_CONFIG.feature_size), "float32")
    names = {"visual_feats": features, "visual_pos": np.tile(np.float32([0.1, 0.2, 0.6, 0.9]), (1, 3, 1))}
    exec(example, names)
    assert names["answers"][0][0].text
