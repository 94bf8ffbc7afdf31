"""Figures without global state, and their bytes: small PNG for maps, SVG for curves, data URIs for a page."""

from __future__ import annotations

import base64
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK = "#1b2733"
GREY = "#6b7884"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text: small files, the reader's own fonts
    "svg.hashsalt": "weatherfm",  # the same figure gives the same bytes
}


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    address: str
    """Data URI."""
    text: str
    """What it shows, for those who do not see it."""
    width: int
    height: int
    """Pixels on the page."""


def style() -> AbstractContextManager[None]:
    """A context in which figures are made and saved; matplotlib's own settings return after it."""
    return matplotlib.rc_context(_STYLE)


def png_bytes(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG of at most 256 colours, a third of the usual size."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with style():
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.putpalette([255 if value == 254 else value for value in image.getpalette() or ()])  # its white is not quite
    small = io.BytesIO()
    image.save(small, format="PNG", compress_level=6, dpi=(dpi, dpi))
    return small.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """An address that holds the picture itself; `kind` is `png` or `svg+xml`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def svg_picture(figure: Figure, text: str) -> Picture:
    """A curve or strip for the page; `text` says what it shows."""
    return Picture(data_uri(svg_bytes(figure), "svg+xml"), text, *_size(figure))


def png_picture(figure: Figure, text: str, dpi: int = 150) -> Picture:
    """A map for the page; `text` says what it shows."""
    return Picture(data_uri(png_bytes(figure, dpi=dpi), "png"), text, *_size(figure))


def _size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches() * 96
    return round(width), round(height)
