"""The curves of the perturbation test, drawn."""

import os
from collections.abc import Mapping
from typing import Any

from lxmert_tf.files import replacing

# Told apart without colour, too: Okabe and Ito's palette, with dashes and markers.
STYLES: tuple[tuple[str, Any, str], ...] = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#000000", ":", "x"),
    ("#CC79A7", (0, (5, 1)), "D"),
    ("#E69F00", (0, (1, 1)), "v"),
    ("#56B4E9", (0, (3, 1, 1, 1)), "*"),
)
TITLES = {
    "negative": "least relevant removed first (higher is better)",
    "positive": "most relevant first (lower is better)",
}


def draw_curves(result: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draws the accuracy by the share that is removed, as a PNG.

    Args:
        result: of `lxmert_tf.explain.evaluation.evaluate`.
        path: file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Drawing curves needs matplotlib: pip install 'lxmert-tf[viz]'.") from error

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = [(part, direction) for part in ("image", "text") for direction in TITLES]
    for axes, (part, direction) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, panels, strict=True):
        for style, (method, curves) in zip(STYLES, result["curves"].items(), strict=False):
            color, line, marker = style
            area = 100 * result["areas"][method][part][direction]
            heights = [100 * accuracy for accuracy in curves[part][direction]]
            label = f"{method.replace('_', ' ')} ({area:.1f})"
            axes.plot(result["steps"], heights, color=color, linestyle=line, marker=marker, label=label)
        axes.set_title(f"{'boxes' if part == 'image' else 'words'}: {TITLES[direction]}", fontsize=11)
        axes.legend(title="area", fontsize=9)
        axes.grid(alpha=0.3)
    figure.supxlabel("share removed")
    figure.supylabel("accuracy, %")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
