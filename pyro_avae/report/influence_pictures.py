"""Pictures of influence: what is most self-influential, and what test images are made of."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_avae.report.style import Picture, as_uri, plain

__all__ = ["most_influential", "most_self_influential"]

#: Images in a row, and test images in the picture.
_COLUMNS, _TESTS = 10, 8
_DPI = 110
_GREY = "#5b6470"


def most_self_influential(top: Sequence[Mapping[str, Any]], images: Tensor) -> Picture:
    """The most self-influential training images, the strongest first, ten in a row.

    Args:
        top: for each the ``name`` that stands over it.
        images: ``(N, C, H, W)``, pixels in [0, 1].
    """
    rows = [range(start, min(start + _COLUMNS, len(top))) for start in range(0, len(top), _COLUMNS)]
    cells = [[(images[place], str(top[place]["name"])) for place in row] for row in rows]
    return _picture(cells, alt=f"The {len(top)} most self-influential training images, the strongest first.")


def most_influential(tests: Sequence[Mapping[str, Any]], images: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Picture:
    """A row for each of the first test images: the image, its proponents, its opponents, the strongest first.

    Args:
        tests: for each its ``name``, and ``proponents`` and ``opponents`` with theirs.
        images: for each the test image ``(C, H, W)``, and those of proponents and opponents ``(K, C, H, W)``.
    """
    rows = []
    for test, (image, *groups) in list(zip(tests, images, strict=True))[:_TESTS]:
        row: list[tuple[Tensor, str] | None] = [(image, str(test["name"]))]
        for name, group in zip(("proponents", "opponents"), groups, strict=True):
            shown = list(zip(group, test[name], strict=True))[: _COLUMNS // 2]
            row += [None, *((one, str(fact["name"])) for one, fact in shown)]
        rows.append(row)
    return _picture(rows, alt="Test images, each with its strongest proponents and then its strongest opponents.")


def _picture(rows: Sequence[Sequence[tuple[Tensor, str] | None]], *, alt: str) -> Picture:
    """Images with a name over each; None is a gap."""
    from matplotlib.figure import Figure

    columns, step = max(map(len, rows)), 1.22
    width, height = 0.78 * columns, 0.78 * step * len(rows)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, columns)
    axes.set_ylim(step * len(rows), 0)
    axes.axis("off")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if cell is None:
                continue
            image, name = cell
            left, top = column + 0.05, step * number + 0.27
            axes.imshow(_pixels(image), extent=(left, left + 0.9, top + 0.9, top), vmin=0, vmax=1, cmap="gray")
            axes.text(column + 0.5, top - 0.04, plain(name), ha="center", va="bottom", fontsize=6.5, color=_GREY)
    axes.set_xlim(0, columns)
    axes.set_ylim(step * len(rows), 0)
    axes.set_aspect("auto")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return Picture(as_uri(buffer.getvalue(), "image/png"), alt, round(_DPI * width), round(_DPI * height))


def _pixels(image: Tensor) -> Any:
    """``(C, H, W)`` to what matplotlib draws; one channel is grey, other than three show the first."""
    shown = torch.nan_to_num(image.detach().float().cpu(), nan=0.5).clamp(0, 1)
    return shown.permute(1, 2, 0).numpy() if len(shown) == 3 else shown[0].numpy()
