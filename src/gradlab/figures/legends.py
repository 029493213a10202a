"""Legends above the panels of a figure, which find room for their entries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import SubFigure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from gradlab.figures import style
from gradlab.figures.line_breaks import filled

MARK, LETTER = 0.55, 0.075  # inches: width of an entry's mark, of a letter
SHORTEST = 12  # letters of a label's line, at least
Entry = Artist | tuple[Artist, ...]  # of a legend: one mark, or several side by side


def legend(body: SubFigure, entries: Sequence[Entry]) -> None:
    """Write the legend above the panels, in as few rows as fit its width.

    Args:
        body: of the figure.
        entries: an entry of several marks shows them side by side under the label of the first.
    """
    columns = len(entries)
    while columns > 1 and not _fits(body, entries, columns):
        columns -= 1
    _draw_legend(body, entries, columns)


def legend_of_groups(body: SubFigure, groups: Mapping[str, Sequence[Entry]]) -> None:
    """Write a legend above the panels whose rows begin with the heading of their group.

    Args:
        body: of the figure.
        groups: the entries of each heading, as in `legend`.
    """
    for columns in range(max(map(len, groups.values())), 0, -1):
        rows = [
            [_without_mark(heading if first == 0 else ""), *entries[first : first + columns]]
            for heading, entries in groups.items()
            for first in range(0, len(entries), columns)
        ]
        rows = [row + [_without_mark("")] * (columns + 1 - len(row)) for row in rows]
        by_column = [entry for column in zip(*rows, strict=True) for entry in column]
        if _fits(body, by_column, columns + 1):
            break
    _draw_legend(body, by_column, columns + 1)


def _without_mark(label: str) -> Entry:
    return Line2D([], [], linestyle="none", label=label)


def _draw_legend(body: SubFigure, entries: Sequence[Entry], columns: int) -> None:
    """Write the entries, column by column; labels too long for the figure in several lines."""
    labels, rows = _labels(entries), -(-len(entries) // columns)
    if not _fits(body, entries, columns):  # break those of the last column
        letters = _room(body, columns) - sum(_widest(entries, columns)[:-1])
        last = [filled(label, max(int(letters), SHORTEST)) for label in labels[-rows:]]
        beside = [label.count("\n") * "\n" for label in last]  # which keeps headings at their rows
        labels = [label + beside[i % rows] for i, label in enumerate(labels[:-rows])] + last
    marks: Any = list(entries)  # Matplotlib's annotations allow no tuples
    handlers = {tuple: HandlerTuple(ndivide=None, pad=0)}
    body.legend(marks, labels, handler_map=handlers, loc="outside upper center", ncols=columns)


def _labels(entries: Sequence[Entry]) -> list[str]:
    firsts = [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
    return [style.literal(str(mark.get_label())) for mark in firsts]


def _fits(body: SubFigure, entries: Sequence[Entry], columns: int) -> bool:
    return sum(_widest(entries, columns)) <= _room(body, columns)


def _room(body: SubFigure, columns: int) -> float:
    """Return the letters that the labels of a legend's columns may have together."""
    width = body.bbox.width / body.get_dpi() / style.current_style().text
    return (width - MARK * columns) / LETTER


def _widest(entries: Sequence[Entry], columns: int) -> list[int]:
    """Return the letters of the longest label of each column of a legend."""
    letters = [len(label) for label in _labels(entries)]
    return [int(max(column)) for column in np.array_split(letters, columns)]
