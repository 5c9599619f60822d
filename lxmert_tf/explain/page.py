"""Explanations as pages: one HTML file with the picture and every attention map, which loads nothing. Needs Pillow."""

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.detector.drawing import NUMBERED
from lxmert_tf.detector.image_processor import import_pillow
from lxmert_tf.explain.drawing import scale_of

if TYPE_CHECKING:
    from lxmert_tf.explain.explanation import Explanation

TEMPLATE = Path(__file__).parent / "templates" / "explanation.html"
STREAMS = {"language": ("tokens", "tokens"), "vision": ("boxes", "boxes")}
CROSSINGS = {
    "language_to_vision": ("tokens", "boxes"),
    "vision_to_language": ("boxes", "tokens"),
    "language_self": ("tokens", "tokens"),
    "vision_self": ("boxes", "boxes"),
}


def make_page(explanation: "Explanation") -> str:
    """The text of an HTML file that shows an explanation; attention is rounded to 1/255."""
    scene = explanation.scene
    maps, parts, start = [], [], 0
    for name, values in explanation.maps.items():
        stack, *_, kind = name.split("/")
        source, target = CROSSINGS.get(kind) or STREAMS[stack]
        _, rows, columns = values.shape
        maps.append({"name": name, "from": source, "to": target, "start": start, "rows": rows, "columns": columns})
        parts.append(np.round(values * 255).astype(np.uint8).tobytes())
        start += values.size
    data: dict[str, Any] = {
        "question": explanation.question,
        "answer": explanation.answer,
        "answers": list(explanation.answers),
        "exclusive": explanation.exclusive,
        "scale": scale_of(explanation),
        "tokens": list(explanation.tokens),
        "token_relevance": explanation.token_relevance.tolist(),
        "boxes": scene.boxes.tolist(),
        "names": list(scene.names),
        "box_relevance": explanation.box_relevance.tolist(),
        "numbered": NUMBERED,
        "picture": _data_address(scene.pixels),
        "heads": next((values.shape[0] for values in explanation.maps.values()), 0),
        "maps": maps,
        "bytes": base64.b64encode(b"".join(parts)).decode("ascii"),
    }
    # A question or a class's name may hold "</script>".
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1)


def _data_address(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    import_pillow().fromarray(pixels).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
