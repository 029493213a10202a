"""Figures of runs, each a function of the table of `gradlab.load_runs`.

    runs = gradlab.load_runs("runs/quickstart")
    gradlab.figures.decay(runs)

A notebook shows what such a call returns as a picture; `.table` is the data in it and `.figure`
Matplotlib's figure, which `gradlab.figures.save` writes. For each figure (`of_runs`) one function
computes a tidy table (`decay_table`) and another draws it (`decay_figure`, or `decay` in short).
"""

from gradlab.figures.of_runs.adjoint import adjoint_figure, adjoint_table
from gradlab.figures.of_runs.clipping import clipping_figure, clipping_table
from gradlab.figures.of_runs.contributions import contributions_figure, contributions_table
from gradlab.figures.of_runs.decay import decay_figure, decay_table
from gradlab.figures.of_runs.gates import gates_figure, gates_table
from gradlab.figures.of_runs.heatmap import heatmap_figure, heatmap_table
from gradlab.figures.of_runs.lyapunov import lyapunov_figure, lyapunov_table
from gradlab.figures.of_runs.overview import overview_figure
from gradlab.figures.of_runs.phase import phase_figure, phase_table
from gradlab.figures.of_runs.singular_values import singular_values_figure, singular_values_table
from gradlab.figures.of_runs.training import training_figure, training_table
from gradlab.figures.of_runs.views import views_figure, views_table
from gradlab.figures.sliders import Slider
from gradlab.figures.style import Drawn, save, theme

adjoint = adjoint_figure
clipping = clipping_figure
contributions = contributions_figure
decay = decay_figure
gates = gates_figure
heatmap = heatmap_figure
lyapunov = lyapunov_figure
overview = overview_figure
phase = phase_figure
singular_values = singular_values_figure
training = training_figure
views = views_figure

__all__ = [
    "Drawn",
    "Slider",
    "adjoint",
    "adjoint_figure",
    "adjoint_table",
    "clipping",
    "clipping_figure",
    "clipping_table",
    "contributions",
    "contributions_figure",
    "contributions_table",
    "decay",
    "decay_figure",
    "decay_table",
    "gates",
    "gates_figure",
    "gates_table",
    "heatmap",
    "heatmap_figure",
    "heatmap_table",
    "lyapunov",
    "lyapunov_figure",
    "lyapunov_table",
    "overview",
    "overview_figure",
    "phase",
    "phase_figure",
    "phase_table",
    "save",
    "singular_values",
    "singular_values_figure",
    "singular_values_table",
    "theme",
    "training",
    "training_figure",
    "training_table",
    "views",
    "views_figure",
    "views_table",
]
