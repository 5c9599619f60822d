"""Explanations as the page shows them: HTML for what is read, so that it is legible on any screen, and a picture."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from lxmert_tf.detector.drawing import NUMBERED, draw_boxes, ranked
from lxmert_tf.detector.image_processor import import_pillow
from lxmert_tf.explain.drawing import percents, scale_of, shade, strengths
from lxmert_tf.explain.explanation import Explanation
from lxmert_tf.explain.scene import Scene

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 640  # pixels of the picture: on a narrow screen larger ones would have small numbers
CSS = """
@media (min-width: 760px) {
  #panels { display: grid; grid-template-rows: repeat(4, auto); grid-auto-columns: 1fr; grid-auto-flow: column }
  #panels > div { display: grid; grid-row: span 4; grid-template-rows: subgrid }
}
.answer { font-size: 1.3em; font-weight: 600; margin: 0 0 .6em; overflow-wrap: anywhere }
.answer mark { background: #fee838; color: #141414; padding: 0 .25em }
.bars { display: grid; grid-template-columns: minmax(8em, 2fr) 3fr 4em; gap: .3em .8em; margin: .3em 0 }
.bars > * { overflow-wrap: anywhere }
.bars > :nth-child(3n) { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.bar { align-self: center; height: .7em; border: 1px solid currentColor }
.bar > div { height: 100%; background: currentColor; opacity: .65 }
.bar > .against { background: repeating-linear-gradient(90deg, currentColor 0 2px, transparent 2px 5px) }
.explained { font-weight: 700 }
.words { display: flex; flex-wrap: wrap; gap: .35em; margin: .3em 0 }
.words > span { display: inline-flex; flex-direction: column; align-items: center }
.words b { font-weight: 400; padding: .1em .5em; border: 1px solid #969696 }
.words small { font-variant-numeric: tabular-nums }
.heading { font-weight: 600; margin-top: .9em }
"""


def render_answers(explanation: Explanation) -> str:
    """HTML of the question, the best answers and their scores."""
    rows = [
        (name, chance, f"{chance:.1%}", "explained" if name == explanation.answer else "")
        for name, chance in explanation.answers
    ]
    best = explanation.answers[0][0]
    apart = "" if explanation.exclusive else "<div>Each answer's score stands on its own.</div>"
    return f'<div class="answer">{escape(explanation.question)} <mark>{escape(best)}</mark></div>{_bars(rows)}{apart}'


def render_relevance(explanation: Explanation) -> str:
    """HTML of the words, shaded by how much they count, and of the boxes that count most."""
    weights, shares = strengths(explanation.token_relevance), percents(explanation.token_relevance)
    words = []
    for token, weight, share in zip(explanation.tokens, weights, shares, strict=True):
        paper, ink = (",".join(map(str, color)) for color in shade(weight))
        style = f"background:rgb({paper});color:rgb({ink})"
        if weight < 0:
            style += f";border:{1 - 2 * weight:.1f}px dashed rgb({ink})"
        words.append(f'<span><b style="{style}">{escape(token)}</b><small>{share}</small></span>')
    of_boxes, shares = strengths(explanation.box_relevance), percents(explanation.box_relevance)
    rows = [
        (f"{number} {explanation.scene.names[index]}", float(of_boxes[index]), shares[index], "")
        for number, index in enumerate(ranked(of_boxes)[:NUMBERED], 1)
    ]
    title = f"What counts for \N{LEFT DOUBLE QUOTATION MARK}{escape(explanation.answer)}\N{RIGHT DOUBLE QUOTATION MARK}"
    return (
        f'<div class="heading">{title}: {scale_of(explanation)}</div><div class="words">{"".join(words)}</div>'
        f'<div class="heading">Boxes</div>{_bars(rows)}'
    )


def render_boxes(explanation: Explanation) -> "Image":
    """The picture with its boxes: the more they count, the wider and lighter the line; dashed against the answer."""
    scene = explanation.scene
    return draw_boxes(render_picture(scene), scene.boxes, strengths(explanation.box_relevance))


def render_picture(scene: Scene) -> "Image":
    """The picture, no larger than the page needs it."""
    picture = import_pillow().fromarray(scene.pixels)
    picture.thumbnail((LONGEST, LONGEST))
    return picture


def _bars(rows: Iterable[tuple[str, float, str, str]]) -> str:
    """Rows of a name, a bar of a share in -1..1, and a number; each has a class."""
    cells = (
        f'<span class="{kind}">{escape(name)}</span>'
        f'<div class="bar"><div class="{"against" if share < 0 else ""}" '
        f'style="width:{100 * min(abs(share), 1):.1f}%"></div></div><span>{number}</span>'
        for name, share, number, kind in rows
    )
    return f'<div class="bars">{"".join(cells)}</div>'
