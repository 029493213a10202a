"""Figures of a sweep. For each, one function computes a tidy table and another draws it."""

from gradlab.figures.decay import decay_figure, decay_table
from gradlab.figures.heatmap import heatmap_figure, heatmap_table, point_figure
from gradlab.figures.overview import overview_figure
from gradlab.figures.style import save
from gradlab.figures.views import views_figure, views_table

__all__ = [
    "decay_figure",
    "decay_table",
    "heatmap_figure",
    "heatmap_table",
    "overview_figure",
    "point_figure",
    "save",
    "views_figure",
    "views_table",
]
