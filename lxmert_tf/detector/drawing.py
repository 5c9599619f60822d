"""Pictures of regions and answers. Needs Pillow.

What weighs is told three times, so that neither colours nor a screen are needed: by lightness, by the width of lines,
and by numbers. What weighs against something is dashed.
"""

import functools
import itertools
import math
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.detector.image_processor import import_pillow, read_image
from lxmert_tf.detector.question_answering import PictureAnswers
from lxmert_tf.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

NUMBERED = 10  # boxes with a number and a name; more would hide each other
# From dark blue over grey to yellow, its lightness rising evenly: some points of "cividis" (Nunez et al. 2018), which
# looks alike to those who do not see red or green.
SCALE = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56))
INK, PAPER, FAINT = (20, 20, 20), (255, 255, 255), (150, 150, 150)
LONGEST, SHORTEST = 960, 480  # pixels that a picture is scaled to at most and at least
FONT_SIZE, MARGIN = 18, 8
DASH = 9  # pixels
# Where Pillow's own font lacks a character: files of fonts that systems have, those of Linux, Windows and macOS
FONTS = (
    *(
        "DejaVuSans.ttf",
        "NotoSansCJK-Regular.ttc",
        "DroidSansFallbackFull.ttf",
        "wqy-zenhei.ttc",
        "NotoEmoji-Regular.ttf",
    ),
    *("msyh.ttc", "YuGothR.ttc", "malgun.ttf", "seguisym.ttf", "seguiemj.ttf", "Arial Unicode.ttf", "PingFang.ttc"),
)
SUFFIXES = (".png", ".jpg", ".jpeg")  # of files that pictures are written to


# Boxes


def draw_boxes(pixels: Any, boxes: np.ndarray, weights: np.ndarray, names: Sequence[str] | None = None) -> "Image":
    """A picture with its boxes: the weightier, the wider and lighter the line; the first `NUMBERED` have their rank.

    The others are faint.

    Args:
        pixels: uint8[h, w, 3], red, green and blue; small ones are enlarged.
        boxes: float[N, 4], x1, y1, x2, y2 in 0..1.
        weights: float[N] in -1..1; lines of those below 0 are dashed.
        names: what is written beside the ranks, if anything.
    """
    picture = _scaled(import_pillow().fromarray(np.asarray(pixels, np.uint8)))
    pen = pen_of(picture)
    corners = np.asarray(boxes, float) * np.tile([picture.width - 1, picture.height - 1], 2)
    order = ranked(weights)
    plain = picture.copy()
    for index in order[NUMBERED:]:
        pen.rectangle(tuple(corners[index]), outline=INK)
    picture.paste(import_pillow().blend(plain, picture, 0.4))
    for index in order[:NUMBERED][::-1]:  # the weightiest on top
        weight = float(weights[index])
        line = 1 + round(6 * abs(weight))
        if weight < 0:
            draw_dashes(pen, corners[index], line)
            continue
        pen.rectangle(tuple(corners[index] + [-1, -1, 1, 1]), outline=INK, width=line + 2)
        pen.rectangle(tuple(corners[index]), outline=color(weight), width=line)
    taken: list[tuple[float, float, float, float]] = []
    for number, index in list(enumerate(order, 1))[:NUMBERED]:
        label = f"{number} {names[index]}" if names is not None else str(number)
        _draw_tag(pen, picture.size, corners[index], label, taken)
    return picture


def ranked(weights: np.ndarray) -> list[int]:
    """Indices, the weightiest first, for or against."""
    return np.argsort(-np.abs(weights), kind="stable").tolist()


def color(weight: float) -> tuple[int, int, int]:
    """Red, green and blue in 0..255 of a weight in 0..1, the lighter the more."""
    place = min(max(weight, 0), 1) * (len(SCALE) - 1)
    low = min(int(place), len(SCALE) - 2)
    mixed = np.asarray(SCALE[low]) * (1 - place + low) + np.asarray(SCALE[low + 1]) * (place - low)
    red, green, blue = mixed.round().astype(int).tolist()
    return red, green, blue


def draw_dashes(pen: "ImageDraw", corners: Sequence[float], width: int) -> None:
    """A rectangle's outline in dashes of ink on paper."""
    left, top, right, bottom = corners
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=PAPER, width=width + 2)
    for start in np.arange(left, right, 2 * DASH):
        end = min(start + DASH, right)
        pen.rectangle((start, top, end, top + width - 1), fill=INK)
        pen.rectangle((start, max(bottom - width + 1, top), end, bottom), fill=INK)
    for start in np.arange(top, bottom, 2 * DASH):
        end = min(start + DASH, bottom)
        pen.rectangle((left, start, left + width - 1, end), fill=INK)
        pen.rectangle((max(right - width + 1, left), start, right, end), fill=INK)


def _draw_tag(pen: "ImageDraw", size: tuple[int, int], corners: np.ndarray, label: str, taken: list) -> None:
    """Writes a label at a corner of a box where no other is, or else as near as there is space."""
    left, top, right, bottom = corners
    width, height = pen.textlength(label, font_of(16, label)) + 8, 20
    corner = [(left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height)]
    rows, columns = np.arange(0, size[1] - height, height), np.arange(0, size[0] - width, height)
    others = sorted(itertools.product(columns, rows), key=lambda place: math.dist(place, (left, top)))
    for x, y in corner + others + corner[:1]:
        x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
        place = (x, y, x + width, y + height)
        if not any(x < b[2] and b[0] < x + width and y < b[3] and b[1] < y + height for b in taken):
            break
    taken.append(place)
    pen.rectangle(place, fill=INK, outline=PAPER)
    pen.text((x + 4, y + 1), label, PAPER, font_of(16, label))


def _scaled(picture: "Image") -> "Image":
    """The picture with its longest side within `SHORTEST` and `LONGEST`."""
    longest = max(picture.size)
    factor = min(max(longest, SHORTEST), LONGEST) / longest
    size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
    resampling = import_pillow().Resampling
    return picture.resize(size, resampling.NEAREST if factor > 1 else resampling.BICUBIC)  # enlarged, not blurred


def pen_of(picture: "Image") -> "ImageDraw":
    """What draws on a picture."""
    from PIL import ImageDraw

    return ImageDraw.Draw(picture)


def font_of(size: int, text: str = "") -> Any:
    """Pillow's own font, so many pixels high; where it lacks a character of the text, one of `FONTS` that has it.

    Of those that are there the one that lacks the fewest.
    """
    own = _font("", size)
    if not (text := "".join(sorted(set(text)))).isascii() and (missing := _missing(own, text)):
        others = [font for name in FONTS if (font := _font(name, size)) is not None]
        lacking = [(missing, own), *((_missing(font, text), font) for font in others)]
        return min(lacking, key=lambda each: each[0])[1]
    return own


@functools.cache
def _font(name: str, size: int) -> Any:
    """A font of the system, or Pillow's own; None where there is none."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None


def _missing(font: Any, text: str) -> int:
    """How many of these characters are drawn as those are that no font has."""
    blank = {"Cc", "Cf", "Mn", "Zs"}
    return sum(
        _drawn(font, character) == _drawn(font, "\U0010ffff")
        for character in text
        if unicodedata.category(character) not in blank
    )


@functools.cache
def _drawn(font: Any, character: str) -> bytes:
    image = import_pillow().new("L", (2 * int(font.size), 2 * int(font.size)))
    pen_of(image).text((0, 0), character, 255, font)
    return image.tobytes()


# Answers


def save_answers(path: str | Path, rows: Sequence[Sequence[PictureAnswers]], pictures: Sequence[Sequence[Any]]) -> None:
    """Draws answers into one file: a row for each picture, or pair, and a column for each question.

    Args:
        path: a file that ends with one of `SUFFIXES`.
        rows: of each picture the answers to all questions, with their `box_weights`.
        pictures: what each row is about, as `read_image` takes it.

    Raises:
        ValueError: it ends with another suffix.
    """
    check_suffix(path)
    panels = [[draw_answer(each, about) for each in row] for row, about in zip(rows, pictures, strict=True)]
    lines = [_joined(row, across=True) for row in panels]
    with replacing(path) as temporary:
        _joined(lines, across=False).save(temporary)


def check_suffix(path: str | Path) -> None:
    """ValueError if no pictures are written to files with this suffix."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a picture is written to a file that ends with {', '.join(SUFFIXES)}.")


def draw_answer(answered: PictureAnswers, pictures: Sequence[Any]) -> "Image":
    """The pictures of an answer with their regions and names, and below them the question and its answers."""
    weights = answered.box_weights or [np.ones(len(each), "float32") for each in answered.regions]
    drawn = []
    for name, picture, regions, shares in zip(answered.pictures, pictures, answered.regions, weights, strict=True):
        of_largest = shares / (shares.max(initial=0) or 1)
        boxes = draw_boxes(read_image(picture), regions.normalized_boxes, of_largest, regions.labels())
        drawn.append(_joined([boxes, _caption([Path(name).name], boxes.width)], across=False))
    image = _joined(drawn, across=True)
    best = ", ".join(f"{each.id if each.text is None else each.text} {each.score:.0%}" for each in answered.answers)
    return _joined([image, _caption([answered.question, best], image.width)], across=False)


def _caption(texts: Sequence[str], width: int) -> "Image":
    columns = max(10, (width - 2 * MARGIN) * 2 // FONT_SIZE)
    lines = [line for text in texts for line in textwrap.wrap(text, columns) or [""]]
    image = import_pillow().new("RGB", (width, len(lines) * (FONT_SIZE + 6) + 2 * MARGIN), "white")
    pen = pen_of(image)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * (FONT_SIZE + 6)), line, fill=INK, font=font_of(FONT_SIZE, line))
    return image


def _joined(images: Sequence["Image"], across: bool) -> "Image":
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
