"""Pictures of answers: the boxes, what is in them, and where the model looked. Needs Pillow."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.detector.image_processor import import_pillow, read_image
from lxmert_tf.detector.question_answering import PictureAnswers
from lxmert_tf.detector.regions import Regions
from lxmert_tf.files import replacing

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 800  # pixels of a drawn picture's longer side
NAMED = 6  # boxes that are named: those that the model looked at most
DARKEST = 0.35  # of the light that is left where it did not look
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080")
FONT_SIZE, MARGIN = 18, 8


def save_answers(path: str | Path, rows: Sequence[Sequence[PictureAnswers]], pictures: Sequence[Sequence[Any]]) -> None:
    """Draws answers into one file: a row for each picture, or pair, and a column for each question.

    Args:
        path: a file of a kind that Pillow writes.
        rows: of each picture the answers to all questions, with their `box_weights`.
        pictures: what each row is about, as `read_image` takes it.

    Raises:
        ValueError: Pillow does not write files with this suffix.
    """
    check_suffix(path)
    panels = [[draw_answer(each, about) for each in row] for row, about in zip(rows, pictures, strict=True)]
    lines = [_joined(row, across=True) for row in panels]
    with replacing(path) as temporary:
        _joined(lines, across=False).save(temporary)


def check_suffix(path: str | Path) -> None:
    """ValueError if Pillow does not write files with this suffix."""
    pillow = import_pillow()
    if pillow.registered_extensions().get(Path(path).suffix.lower()) not in pillow.SAVE:
        raise ValueError(f"{path} must have the suffix of a kind of picture, such as .png or .jpg.")


def draw_answer(answered: PictureAnswers, pictures: Sequence[Any]) -> "Image.Image":
    """The pictures of an answer with their regions, and below them the question and its answers."""
    weights = answered.box_weights or [np.ones(len(each), "float32") for each in answered.regions]
    drawn = [draw_regions(*each) for each in zip(pictures, answered.regions, weights, strict=True)]
    image = _joined(drawn, across=True)
    best = ", ".join(f"{each.id if each.text is None else each.text} {each.score:.0%}" for each in answered.answers)
    return _joined([image, _caption([answered.question, best], image.width)], across=False)


def draw_regions(picture: Any, regions: Regions, weights: np.ndarray) -> "Image.Image":
    """A picture with boxes around its regions, the lighter the more they weigh; those that weigh most have names.

    Args:
        picture: as `read_image` takes it.
        regions: what was found in it.
        weights: float[n], at least 0.
    """
    from PIL import ImageDraw

    pillow = import_pillow()
    image = pillow.fromarray(read_image(picture))
    scale = LONGEST / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    boxes = (regions.boxes * scale).round().astype(int)
    shares = weights / max(float(weights.max(initial=0)), 1e-12)
    light = np.full((size[1], size[0], 1), DARKEST if len(boxes) else 1.0)
    for (x1, y1, x2, y2), share in zip(boxes.clip(0), shares, strict=True):
        place = light[y1 : y2 + 1, x1 : x2 + 1]
        np.maximum(place, DARKEST + (1 - DARKEST) * share, out=place)
    image = pillow.fromarray((np.asarray(image.resize(size)) * light).astype("uint8"))
    pen, font = ImageDraw.Draw(image), _font()
    order = np.argsort(-shares, kind="stable")
    for place in order[NAMED:]:
        pen.rectangle(tuple(boxes[place].tolist()), outline="#d0d0d0")
    for place, colour in reversed(list(zip(order[:NAMED], COLOURS, strict=False))):  # the heaviest is on top
        x1, y1, x2, y2 = boxes[place].tolist()
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=3)
        text = region_name(regions, place)
        corner = min(x1, max(0, int(size[0] - font.getlength(text) - 6))), max(0, y1 - FONT_SIZE - 6)
        pen.rectangle((*corner, corner[0] + font.getlength(text) + 6, corner[1] + FONT_SIZE + 6), fill=colour)
        pen.text((corner[0] + 3, corner[1] + 1), text, fill="white", font=font)
    return image


def region_name(regions: Regions, place: int) -> str:
    """What a region is called: "brown dog", or its class where the detector does not know names."""
    if regions.object_names is None:
        return f"class {regions.object_ids[place]}"
    attribute = regions.attribute_names[place] if regions.attribute_names is not None else ""
    return f"{attribute} {regions.object_names[place]}".strip()


def _caption(texts: Sequence[str], width: int) -> "Image.Image":
    from PIL import ImageDraw

    columns = max(10, (width - 2 * MARGIN) * 2 // FONT_SIZE)
    lines = [line for text in texts for line in textwrap.wrap(text, columns) or [""]]
    image = import_pillow().new("RGB", (width, len(lines) * (FONT_SIZE + 6) + 2 * MARGIN), "white")
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * (FONT_SIZE + 6)), line, fill="black", font=_font())
    return image


def _joined(images: Sequence["Image.Image"], across: bool) -> "Image.Image":
    """Images beside or below each other."""
    axis = 0 if across else 1
    sizes = np.array([image.size for image in images])
    size = sizes.max(axis=0)
    size[axis] = sizes[:, axis].sum()
    joined = import_pillow().new("RGB", tuple(size.tolist()), "white")
    starts = np.cumsum(sizes[:, axis]) - sizes[:, axis]
    for image, start in zip(images, starts.tolist(), strict=True):
        joined.paste(image, (start, 0) if across else (0, start))
    return joined


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(FONT_SIZE)
