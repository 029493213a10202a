"""Figures of a sweep. For each, one function computes a tidy table and another draws it."""

from gradlab.figures.adjoint import adjoint_figure, adjoint_table
from gradlab.figures.clipping import clipping_figure, clipping_table
from gradlab.figures.contributions import contributions_figure, contributions_table
from gradlab.figures.decay import decay_figure, decay_table
from gradlab.figures.gates import gates_figure, gates_table
from gradlab.figures.heatmap import heatmap_figure, heatmap_table
from gradlab.figures.lyapunov import lyapunov_figure, lyapunov_table
from gradlab.figures.overview import overview_figure
from gradlab.figures.phase import phase_figure, phase_table
from gradlab.figures.singular_values import singular_values_figure, singular_values_table
from gradlab.figures.style import save
from gradlab.figures.training import training_figure, training_table
from gradlab.figures.views import views_figure, views_table

__all__ = [
    "adjoint_figure",
    "adjoint_table",
    "clipping_figure",
    "clipping_table",
    "contributions_figure",
    "contributions_table",
    "decay_figure",
    "decay_table",
    "gates_figure",
    "gates_table",
    "heatmap_figure",
    "heatmap_table",
    "lyapunov_figure",
    "lyapunov_table",
    "overview_figure",
    "phase_figure",
    "phase_table",
    "save",
    "singular_values_figure",
    "singular_values_table",
    "training_figure",
    "training_table",
    "views_figure",
    "views_table",
]
