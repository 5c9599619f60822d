"""Explanations as pictures. Needs Pillow.

What counts is told three times, so that neither colours nor a screen are needed: by lightness, by the width of lines or
bars, and by numbers. What speaks against the answer has dashes in place of colours.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lxmert_tf.detector.drawing import (
    FAINT,
    INK,
    NUMBERED,
    PAPER,
    SCALE,
    draw_boxes,
    draw_dashes,
    font_of,
    pen_of,
    ranked,
)
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

    title = f"{explanation.answer}   ({scale_of(explanation)})"
    _write(pen, MARGIN, MARGIN, explanation.question, 20, width - 2 * MARGIN)
    _write(pen, MARGIN, MARGIN + LINE, title, 16, width - 2 * MARGIN)
    _draw_words(pen, words, explanation.tokens, explanation.token_relevance, MARGIN + 2 * LINE + 8)
    canvas.paste(picture, (MARGIN, top))
    x, y = picture.width + 2 * MARGIN, top
    pen.text((x, y), "boxes, by relevance", INK, font_of(16))
    for number, index in enumerate(names, 1):
        y += LINE
        label = f"{number}  {scene.names[index]}"
        _draw_bar(pen, x, y, label, weights[index], shares[index])
    y += 2 * LINE
    pen.text((x, y), "answers" if explanation.exclusive else "answers, each on its own", INK, font_of(16))
    for name, chance in explanation.answers:
        y += LINE
        mark = "> " if name == explanation.answer else "   "
        _draw_bar(pen, x, y, mark + name, chance, f"{chance:.1%}")
    return canvas


def scale_of(explanation: "Explanation") -> str:
    """What the numbers are."""
    either = np.concatenate([explanation.token_relevance, explanation.box_relevance])
    against = "; below 0, dashed: against it" if (either < 0).any() else ""
    return f"relevance by {explanation.method.replace('_', ' ')}, in percent of the largest{against}"


def strengths(relevance: np.ndarray) -> np.ndarray:
    """Relevance as weights in -1..1, of the largest magnitude."""
    return relevance / (np.abs(relevance).max(initial=0) or 1)


def percents(relevance: np.ndarray) -> list[str]:
    """`strengths` in percent, as text."""
    return [f"{share + 0.0:.0f}%" for share in np.round(100 * strengths(relevance))]  # -0.0 is written 0


def shade(weight: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Red, green and blue in 0..255 of a word's paper, the darker the more its weight above 0, and of its ink."""
    paper = tuple(round(255 - (255 - dark) * max(float(weight), 0)) for dark in SCALE[0])
    return paper, PAPER if weight > 0.45 else INK


# Parts


def _draw_bar(pen: "ImageDraw", x: int, y: int, label: str, share: float, number: str) -> None:
    """A line of the column: a name, a bar of a share in -1..1 and a number."""
    _write(pen, x, y, label, 15, 160)
    left, right = x + 170, x + 170 + round(100 * min(abs(share), 1))
    pen.rectangle((left, y + 3, left + 100, y + 15), outline=FAINT)
    for start in range(left, right + 1, 5 if share < 0 else right + 1 - left):  # striped below 0
        pen.rectangle((start, y + 3, min(start + 1, right) if share < 0 else right, y + 15), fill=SCALE[1])
    pen.text((x + 278, y), number, INK, font_of(15))


def _word_rows(tokens: Sequence[str], width: int) -> list[list[tuple[int, int, int]]]:
    """Rows of (index, left, right) of words that fit the width."""
    rows: list[list[tuple[int, int, int]]] = [[]]
    left = 0
    for index, token in enumerate(tokens):
        wide = max(round(font_of(17, token).getlength(token)), 34) + 12
        if left and left + wide > width:
            rows.append([])
            left = 0
        rows[-1].append((index, left, left + wide))
        left += wide + 4
    return rows


def _draw_words(
    pen: "ImageDraw", rows: list[list[tuple[int, int, int]]], tokens: Sequence[str], relevance: np.ndarray, top: int
) -> None:
    """Words on paper that is the darker the more they count, or dashed around, and their numbers below."""
    weights, shares = strengths(relevance), percents(relevance)
    for number, row in enumerate(rows):
        y = top + number * 2 * LINE
        for index, left, right in row:
            paper, ink = shade(weights[index])
            token, place = tokens[index], (MARGIN + left, y, MARGIN + right, y + LINE)
            pen.rectangle(place, fill=paper, outline=FAINT)
            if weights[index] < 0:
                draw_dashes(pen, place, 1 + round(2 * -weights[index]))
            pen.text((MARGIN + (left + right) / 2, y + LINE / 2), token, ink, font_of(17, token), anchor="mm")
            pen.text((MARGIN + (left + right) / 2, y + LINE + 10), shares[index], INK, font_of(12), anchor="mm")


def _write(pen: "ImageDraw", x: int, y: int, text: str, size: int, width: int) -> None:
    """A line of text, or its beginning and dots where it is wider than so many pixels."""
    font = font_of(size, text)
    while font.getlength(text) > width and len(text) > 4:
        text = text.removesuffix("...")[:-1] + "..."
    pen.text((x, y), text, INK, font)


def _canvas(width: int, height: int) -> tuple["Image", "ImageDraw"]:
    canvas = import_pillow().new("RGB", (width, height), PAPER)
    return canvas, pen_of(canvas)
