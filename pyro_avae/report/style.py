"""The look of the figures, and how one becomes part of a page.

Figures are made through matplotlib's objects, never through pyplot: nothing global changes, and no display is needed.
"""

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "COLORS",
    "Picture",
    "as_uri",
    "dress",
    "legend",
    "line_style",
    "majority_line",
    "new_figure",
    "plain",
    "svg_picture",
]

#: Okabe and Ito's colours, told apart with any colour vision and in greyscale by their order of lightness.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6a3d9a", "#444444")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_GREY = "#5b6470"


@dataclass(frozen=True)
class Picture:
    """An image within a page.

    Attributes:
        uri: the whole image as a ``data:`` address.
        alt: what it shows, for who cannot see it.
        width: natural width in CSS pixels.
        height: natural height in CSS pixels.
    """

    uri: str
    alt: str
    width: int
    height: int

    @property
    def content(self) -> bytes:
        """The image as the bytes of a file of its own."""
        return base64.b64decode(self.uri.partition(";base64,")[2])


def new_figure(rows: int, columns: int, *, width: float, height: float, sharey: bool = False) -> tuple[Any, list[Any]]:
    """A figure of ``rows x columns`` axes, sizes in inches, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def line_style(number: int) -> dict[str, Any]:
    """Colour, dash and marker of the run with this number: no two of the first eight share a colour."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": _DASHES[number // len(COLORS) % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def dress(axes: Any, *, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Title, labels, a quiet grid."""
    axes.set_title(plain(title), fontsize=10, loc="left", color="#1c232b")
    axes.set_xlabel(plain(xlabel), fontsize=9, color=_GREY)
    axes.set_ylabel(plain(ylabel), fontsize=9, color=_GREY)
    axes.tick_params(labelsize=8, colors=_GREY, length=3)
    axes.grid(True, color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#b8c0c9")


def majority_line(axes: Any, share: float, *, upright: bool = False) -> Any:
    """A dashed line where always saying the most frequent class would be; accuracies in per cent."""
    draw = axes.axvline if upright else axes.axhline
    return draw(100 * share, color="#6b747e", linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)


def legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for the whole figure, under it."""
    # Labels are put in afterwards: the constructor drops those that begin with an underscore.
    made = figure.legend(
        handles,
        [str(number) for number in range(len(labels))],
        loc="outside lower center",
        ncols=min(4, len(labels)),
        frameon=False,
        fontsize=9,
    )
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_text(plain(label))


def plain(text: str) -> str:
    """Text as matplotlib draws it letter by letter: a pair of dollar signs would otherwise be read as a formula."""
    return "".join(letter if letter.isprintable() else " " for letter in text).replace("$", r"\$")


def svg_picture(figure: Any, alt: str) -> Picture:
    """The figure as an SVG with its letters as outlines: it needs no font, and being an image it can run nothing."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    # A fixed salt makes the same numbers the same file.
    with mpl.rc_context({"svg.hashsalt": "pyro-avae", "svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font|constrained_layout not applied")
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(as_uri(buffer.getvalue(), "image/svg+xml"), alt, width, height)


def as_uri(content: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
