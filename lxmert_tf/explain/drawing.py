"""Explanations as pictures. Needs Pillow.

What counts is told three times, so that neither colours nor a screen are needed: by lightness, by the width of lines or
bars, and by numbers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from lxmert_tf.explain.explanation import Explanation

NUMBERED = 10  # boxes with a number and a name; more would hide each other
# From dark blue over grey to yellow, its lightness rising evenly: some points of "cividis" (Nunez et al. 2018), which
# looks alike to those who do not see red or green.
SCALE = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56))
INK, PAPER, FAINT = (20, 20, 20), (255, 255, 255), (150, 150, 150)
MARGIN, SIDE, LINE = 24, 330, 26  # pixels: around, of the column of names, of a line of text
LONGEST, SHORTEST = 960, 480  # pixels that a picture is scaled to at most and at least


def draw(explanation: "Explanation") -> "Image":
    """An explanation as one picture: the question in shaded words, the boxes and their names, the best answers."""
    scene = explanation.scene
    weights = strengths(explanation.box_relevance)
    picture = draw_boxes(scene.pixels, scene.boxes, weights)
    width = picture.width + SIDE + 3 * MARGIN
    words = _word_rows(explanation.tokens, width - 2 * MARGIN)
    top = MARGIN + 2 * LINE + len(words) * 2 * LINE + MARGIN
    names, shares = ranked(weights)[:NUMBERED], percents(explanation.box_relevance)
    column = (len(names) + len(explanation.answers) + 4) * LINE
    canvas, pen = _canvas(width, top + max(picture.height, column) + MARGIN)

    method = explanation.method.replace("_", " ")
    title = f"{explanation.answer}   (relevance by {method}, of the largest)"
    pen.text((MARGIN, MARGIN), _shortened(explanation.question, width - 2 * MARGIN, 20), INK, _font(20))
    pen.text((MARGIN, MARGIN + LINE), title, INK, _font(16))
    _draw_words(pen, words, explanation.tokens, explanation.token_relevance, MARGIN + 2 * LINE + 8)
    canvas.paste(picture, (MARGIN, top))
    x, y = picture.width + 2 * MARGIN, top
    pen.text((x, y), "boxes, by relevance", INK, _font(16))
    for number, index in enumerate(names, 1):
        y += LINE
        label = f"{number}  {scene.names[index]}"
        _draw_bar(pen, x, y, label, weights[index], shares[index])
    y += 2 * LINE
    pen.text((x, y), "answers", INK, _font(16))
    for name, chance in explanation.answers:
        y += LINE
        mark = "> " if name == explanation.answer else "   "
        _draw_bar(pen, x, y, mark + name, chance, f"{chance:.1%}")
    return canvas


def draw_boxes(pixels: Any, boxes: np.ndarray, weights: np.ndarray, names: Sequence[str] | None = None) -> "Image":
    """A picture with its boxes: the weightier, the wider and lighter the line; the first `NUMBERED` have their rank.

    The others are faint.

    Args:
        pixels: uint8[h, w, 3], red, green and blue; small ones are enlarged.
        boxes: float[N, 4], x1, y1, x2, y2 in 0..1.
        weights: float[N] in 0..1.
        names: what is written beside the ranks, if anything.
    """
    picture = _scaled(pillow().fromarray(np.asarray(pixels, np.uint8)))
    pen = _pen(picture)
    corners = np.asarray(boxes, float) * np.tile([picture.width - 1, picture.height - 1], 2)
    order = ranked(weights)
    plain = picture.copy()
    for index in order[NUMBERED:]:
        pen.rectangle(tuple(corners[index]), outline=INK)
    picture.paste(pillow().blend(plain, picture, 0.4))
    for index in order[:NUMBERED][::-1]:  # the weightiest on top
        weight = float(weights[index])
        line = 1 + round(6 * weight)
        pen.rectangle(tuple(corners[index] + [-1, -1, 1, 1]), outline=INK, width=line + 2)
        pen.rectangle(tuple(corners[index]), outline=color(weight), width=line)
    taken: list[tuple[float, float, float, float]] = []
    for number, index in list(enumerate(order, 1))[:NUMBERED]:
        label = f"{number} {names[index]}" if names is not None else str(number)
        _draw_tag(pen, picture.size, corners[index], label, taken)
    return picture


def strengths(relevance: np.ndarray) -> np.ndarray:
    """Relevance as weights in 0..1, of the largest; what speaks against the answer has 0."""
    positive = np.maximum(relevance, 0)
    return positive / (positive.max(initial=0) or 1)


def percents(relevance: np.ndarray) -> list[str]:
    """Relevance in percent of the largest magnitude, as text."""
    largest = np.abs(relevance).max(initial=0) or 1
    return [f"{share:.0f}%" for share in 100 * relevance / largest + 0.0]


def ranked(weights: np.ndarray) -> list[int]:
    """Indices, the weightiest first."""
    return np.argsort(-weights, kind="stable").tolist()


def color(weight: float) -> tuple[int, int, int]:
    """Red, green and blue in 0..255 of a weight in 0..1, the lighter the more."""
    place = min(max(weight, 0), 1) * (len(SCALE) - 1)
    low = min(int(place), len(SCALE) - 2)
    mixed = np.asarray(SCALE[low]) * (1 - place + low) + np.asarray(SCALE[low + 1]) * (place - low)
    red, green, blue = mixed.round().astype(int).tolist()
    return red, green, blue


# Parts


def _draw_tag(pen: "ImageDraw", size: tuple[int, int], corners: np.ndarray, label: str, taken: list) -> None:
    """Writes a label at a corner of a box where no other is, or else below the last tried."""
    left, top, right, bottom = corners
    width, height = pen.textlength(label, _font(16)) + 8, 20
    corner = [(left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height)]
    shifts = [(left, top + height * step) for step in range(1, 12)]
    for x, y in corner + shifts:
        x, y = min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)
        place = (x, y, x + width, y + height)
        if not any(x < b[2] and b[0] < x + width and y < b[3] and b[1] < y + height for b in taken):
            break
    taken.append(place)
    pen.rectangle(place, fill=INK, outline=PAPER)
    pen.text((x + 4, y + 1), label, PAPER, _font(16))


def _draw_bar(pen: "ImageDraw", x: int, y: int, label: str, share: float, number: str) -> None:
    """A line of the column: a name, a bar in 0..1 and a number."""
    pen.text((x, y), _shortened(label, 160, 15), INK, _font(15))
    pen.rectangle((x + 170, y + 3, x + 170 + 100, y + 15), outline=FAINT)
    pen.rectangle((x + 170, y + 3, x + 170 + round(100 * min(max(share, 0), 1)), y + 15), fill=SCALE[1])
    pen.text((x + 278, y), number, INK, _font(15))


def _word_rows(tokens: Sequence[str], width: int) -> list[list[tuple[int, int, int]]]:
    """Rows of (index, left, right) of words that fit the width."""
    rows: list[list[tuple[int, int, int]]] = [[]]
    left = 0
    for index, token in enumerate(tokens):
        wide = max(round(_font(17).getlength(token)), 34) + 12
        if left and left + wide > width:
            rows.append([])
            left = 0
        rows[-1].append((index, left, left + wide))
        left += wide + 4
    return rows


def _draw_words(
    pen: "ImageDraw", rows: list[list[tuple[int, int, int]]], tokens: Sequence[str], relevance: np.ndarray, top: int
) -> None:
    """Words on paper that is the darker the more they count, and their numbers below."""
    weights, shares = strengths(relevance), percents(relevance)
    for number, row in enumerate(rows):
        y = top + number * 2 * LINE
        for index, left, right in row:
            shade = tuple(round(255 - (255 - dark) * float(weights[index])) for dark in SCALE[0])
            pen.rectangle((MARGIN + left, y, MARGIN + right, y + LINE), fill=shade, outline=FAINT)
            ink = PAPER if weights[index] > 0.45 else INK
            pen.text((MARGIN + (left + right) / 2, y + LINE / 2), tokens[index], ink, _font(17), anchor="mm")
            pen.text((MARGIN + (left + right) / 2, y + LINE + 10), shares[index], INK, _font(12), anchor="mm")


def _scaled(picture: "Image") -> "Image":
    """The picture with its longest side within `SHORTEST` and `LONGEST`."""
    longest = max(picture.size)
    factor = min(max(longest, SHORTEST), LONGEST) / longest
    return picture.resize((max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)))


def _shortened(text: str, width: int, size: int) -> str:
    """The text, or its beginning and dots where it is wider than so many pixels."""
    while _font(size).getlength(text) > width and len(text) > 4:
        text = text.removesuffix("...")[:-1] + "..."
    return text


def _canvas(width: int, height: int) -> tuple["Image", "ImageDraw"]:
    canvas = pillow().new("RGB", (width, height), PAPER)
    return canvas, _pen(canvas)


def _pen(picture: "Image") -> "ImageDraw":
    from PIL import ImageDraw

    return ImageDraw.Draw(picture)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Drawing explanations needs Pillow: pip install 'lxmert-tf[detector]'.") from error
    return Image
