"""What the page does, without the page: sees pictures, answers, explains, and keeps to limits."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lxmert_tf.data.features.store import FeatureStore
from lxmert_tf.detector import DetectorConfig, FasterRCNN
from lxmert_tf.detector.image_processor import LargeImage, read_image
from lxmert_tf.detector.pipelines import DEFAULT, make_pipeline
from lxmert_tf.explain.explanation import Explainer, Explanation
from lxmert_tf.explain.scene import Scene, from_features, from_photo

MAX_PIXELS = 40_000_000  # of an uploaded picture
MAX_QUESTION = 300  # characters
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True, eq=False)
class Asked:
    """What a visitor has asked.

    Args:
        picture: the picture's file, or its name in the region features.
        scene: the picture.
        explanations: of each question.
    """

    picture: str
    scene: Scene
    explanations: tuple[Explanation, ...]


class Asking:
    """Answers and explains, one visitor after the other.

    Args:
        explainer: the model.
        see: a picture's file, or its name in the region features -> what is in it.
        time_limit: seconds that an answer may take, waiting among them.
    """

    def __init__(self, explainer: Explainer, see: Callable[[str], Scene], time_limit: float = 120):
        self.explainer, self.see, self.time_limit = explainer, see, time_limit
        self._worker = ThreadPoolExecutor(1)

    def check(self, picture: str) -> None:
        """ValueError if an uploaded file is no picture that is taken."""
        _checked(lambda: read_image(picture, MAX_PIXELS, Path(picture).name), picture)

    def ask(self, picture: str | None, questions: Sequence[str], method: str, asked: Asked | None = None) -> Asked:
        """Answers questions about a picture, which is seen once as long as it stays the same.

        Args:
            picture: as of `see`.
            questions: empty ones are left out.
            method: one of `METHODS`.
            asked: what was asked before.

        Raises:
            ValueError: there is no picture or question, it is too long, or the picture cannot be read.
            TimeoutError: it took longer than the limit.
        """
        questions = [question.strip() for question in questions if question.strip()]
        if not picture:
            raise ValueError("Choose a picture first.")
        if not questions:
            raise ValueError("Ask a question first.")
        if (longest := max(map(len, questions))) > MAX_QUESTION:
            raise ValueError(f"A question has at most {MAX_QUESTION} characters, not {longest}.")

        def answer() -> Asked:
            scene = asked.scene if asked is not None and asked.picture == picture else self.see(picture)
            if not len(scene.boxes):
                raise ValueError("Nothing was found in this picture; try another.")
            explain = self.explainer.explain
            return Asked(picture, scene, tuple(explain(each, scene, None, method) for each in questions))

        return self._in_time(answer)

    def explain(self, asked: Asked, answers: Sequence[str | None], method: str) -> Asked:
        """Explains other answers, or by another method.

        Args:
            asked: what was asked.
            answers: of each question, by name.
            method: one of `METHODS`.

        Raises:
            ValueError: there is no such answer.
            TimeoutError: it took longer than the limit.
        """

        def explain() -> Asked:
            pairs = list(zip(asked.explanations, answers, strict=False))
            done = [
                why
                if (why.answer, why.method) == (answer or why.answer, method)
                else self.explainer.explain(why.question, asked.scene, answer or why.answer, method)
                for why, answer in pairs
            ]
            return replace(asked, explanations=tuple(done))

        return self._in_time(explain)

    def _in_time(self, work: Callable[[], Asked]) -> Asked:
        future = self._worker.submit(work)
        if wait([future], self.time_limit).not_done:
            future.cancel()  # if it waits; what runs cannot be stopped, and the next one waits for it
            raise TimeoutError(f"It took longer than {self.time_limit:g} seconds. Try again later, or another method.")
        return future.result()


def see_photos(explainer: Explainer, detector: str, **settings: Any) -> Callable[[str], Scene]:
    """What sees uploaded pictures.

    Args:
        explainer: whose model's features the detector must have.
        detector: checkpoint of any format, or Hub id.
        **settings: as of `make_pipeline`.

    Raises:
        FileNotFoundError, ValueError: there is no such detector, or it or a number does not fit.
    """
    network = FasterRCNN.from_pretrained(detector)
    _check_width(explainer, network.config.feature_size, "The detector's")
    pipeline = make_pipeline(settings.pop("pipeline", DEFAULT), network.config, **settings)

    def see(picture: str) -> Scene:
        return _checked(
            lambda: from_photo(picture, network, MAX_PIXELS, Path(picture).name, pipeline=pipeline), picture
        )

    return see


def _checked(read: Callable[[], Any], picture: str) -> Any:
    """What is read; of a picture that is too large a visitor is told so, and not of an argument of ours."""
    try:
        return read()
    except LargeImage as error:
        raise ValueError(
            f"{Path(picture).name} is too large: pictures of up to {MAX_PIXELS:,} pixels are taken; make it smaller."
        ) from error


def see_features(
    explainer: Explainer, store: FeatureStore, images: str | os.PathLike | None = None, detector: str | None = None
) -> Callable[[str], Scene]:
    """What sees the pictures of a file of region features.

    Args:
        explainer: whose model's features they must be.
        store: the file.
        images: a directory with the pictures, ID.jpg or another of `SUFFIXES`; boxes of others are drawn on white.
        detector: whose names of classes the boxes get.

    Raises:
        FileNotFoundError, ValueError: a directory does not exist, or the features do not fit.
    """
    _check_width(explainer, store.feat_dim, "The")
    if images is not None and not os.path.isdir(images):
        raise NotADirectoryError(f"There is no directory {os.fspath(images)!r} of images.")
    config = None if detector is None else DetectorConfig.from_pretrained(detector)

    def see(picture: str) -> Scene:
        if picture not in store:
            raise ValueError(f"There is no picture {picture!r}.")
        return from_features(store, picture, None if images is None else _photo(Path(images), picture), config)

    return see


def _photo(images: Path, name: str) -> Path | None:
    """The picture's file, if there is one."""
    if Path(name).name != name:  # a file of features may come from elsewhere
        return None
    return next((path for suffix in SUFFIXES if (path := images / f"{name}{suffix}").is_file()), None)


def _check_width(explainer: Explainer, width: int, whose: str) -> None:
    wanted = explainer.model.config.visual_feat_dim
    if width != wanted:
        raise ValueError(f"{whose} features are {width} wide, but visual_feat_dim of the model is {wanted}.")
