"""Figures of a page in groups, and the drawing of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from tqdm import tqdm

from weatherfm.evaluation.figures.pictures import Picture, svg_picture


@dataclass(frozen=True)
class Plot:
    """A figure yet to be drawn."""

    figure: Callable[[], Figure]
    text: str
    """What it shows."""


@dataclass(frozen=True)
class PlotGroup:
    """Curves that belong together."""

    title: str
    note: str
    plots: tuple[Plot, ...]
    folded: bool = False
    """Shown on request only."""


@dataclass(frozen=True)
class PictureGroup:
    """A group that is drawn."""

    title: str
    note: str
    pictures: tuple[Picture, ...]
    folded: bool


def draw(groups: Sequence[PlotGroup], what: str) -> list[PictureGroup]:
    """Draw all figures of all groups that have any; `what` names the progress bar."""
    with tqdm(total=sum(len(group.plots) for group in groups), desc=what, unit="figure", disable=None) as bar:
        drawn = []
        for group in groups:
            pictures = []
            for plot in group.plots:
                pictures.append(svg_picture(plot.figure(), plot.text))
                bar.update()
            if pictures:
                drawn.append(PictureGroup(group.title, group.note, tuple(pictures), group.folded))
    return drawn
