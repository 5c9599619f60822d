"""Explanations as pictures. Needs Pillow.

What counts is told three times, so that neither colours nor a screen are needed: by lightness, by the width of lines or
bars, and by numbers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lxmert_tf.detector.drawing import FAINT, INK, NUMBERED, PAPER, SCALE, draw_boxes, font_of, pen_of, ranked
from lxmert_tf.detector.image_processor import import_pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from lxmert_tf.explain.explanation import Explanation

MARGIN, SIDE, LINE = 24, 330, 26  # pixels: around, of the column of names, of a line of text


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
    pen.text((MARGIN, MARGIN), _shortened(explanation.question, width - 2 * MARGIN, 20), INK, font_of(20))
    pen.text((MARGIN, MARGIN + LINE), title, INK, font_of(16))
    _draw_words(pen, words, explanation.tokens, explanation.token_relevance, MARGIN + 2 * LINE + 8)
    canvas.paste(picture, (MARGIN, top))
    x, y = picture.width + 2 * MARGIN, top
    pen.text((x, y), "boxes, by relevance", INK, font_of(16))
    for number, index in enumerate(names, 1):
        y += LINE
        label = f"{number}  {scene.names[index]}"
        _draw_bar(pen, x, y, label, weights[index], shares[index])
    y += 2 * LINE
    pen.text((x, y), "answers", INK, font_of(16))
    for name, chance in explanation.answers:
        y += LINE
        mark = "> " if name == explanation.answer else "   "
        _draw_bar(pen, x, y, mark + name, chance, f"{chance:.1%}")
    return canvas


def strengths(relevance: np.ndarray) -> np.ndarray:
    """Relevance as weights in 0..1, of the largest; what speaks against the answer has 0."""
    positive = np.maximum(relevance, 0)
    return positive / (positive.max(initial=0) or 1)


def percents(relevance: np.ndarray) -> list[str]:
    """Relevance in percent of the largest magnitude, as text."""
    largest = np.abs(relevance).max(initial=0) or 1
    return [f"{share:.0f}%" for share in 100 * relevance / largest + 0.0]


def shade(weight: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Red, green and blue in 0..255 of a word's paper, the darker the more its weight in 0..1, and of its ink."""
    paper = tuple(round(255 - (255 - dark) * float(weight)) for dark in SCALE[0])
    return paper, PAPER if weight > 0.45 else INK


# Parts


def _draw_bar(pen: "ImageDraw", x: int, y: int, label: str, share: float, number: str) -> None:
    """A line of the column: a name, a bar in 0..1 and a number."""
    pen.text((x, y), _shortened(label, 160, 15), INK, font_of(15))
    pen.rectangle((x + 170, y + 3, x + 170 + 100, y + 15), outline=FAINT)
    pen.rectangle((x + 170, y + 3, x + 170 + round(100 * min(max(share, 0), 1)), y + 15), fill=SCALE[1])
    pen.text((x + 278, y), number, INK, font_of(15))


def _word_rows(tokens: Sequence[str], width: int) -> list[list[tuple[int, int, int]]]:
    """Rows of (index, left, right) of words that fit the width."""
    rows: list[list[tuple[int, int, int]]] = [[]]
    left = 0
    for index, token in enumerate(tokens):
        wide = max(round(font_of(17).getlength(token)), 34) + 12
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
            paper, ink = shade(weights[index])
            pen.rectangle((MARGIN + left, y, MARGIN + right, y + LINE), fill=paper, outline=FAINT)
            pen.text((MARGIN + (left + right) / 2, y + LINE / 2), tokens[index], ink, font_of(17), anchor="mm")
            pen.text((MARGIN + (left + right) / 2, y + LINE + 10), shares[index], INK, font_of(12), anchor="mm")


def _shortened(text: str, width: int, size: int) -> str:
    """The text, or its beginning and dots where it is wider than so many pixels."""
    while font_of(size).getlength(text) > width and len(text) > 4:
        text = text.removesuffix("...")[:-1] + "..."
    return text


def _canvas(width: int, height: int) -> tuple["Image", "ImageDraw"]:
    canvas = import_pillow().new("RGB", (width, height), PAPER)
    return canvas, pen_of(canvas)
