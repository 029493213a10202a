"""Figure of three views of one run: measured decay over lag, Lyapunov spectrum, theory."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from gradlab import decay
from gradlab.figures import legends, remedies, selection, style, units
from gradlab.figures.labels import label_of
from gradlab.figures.of_runs import lyapunov
from gradlab.records import load_gradients

MEASURED_COLOUR, EXPONENT_COLOUR = "#009e73", "#cc79a7"
PROBES = {  # by the variable that each of them measures
    "jacobian_log_norm": "spectral",
    "lyapunov_exponent": "lyapunov",
    "theory_rate": "theory",
}
VERDICTS = ("vanishing", "stable", "exploding")  # that a decay rate is the reason of
THEORY_DASHES = {"bound": ":", "log spectral radius": "-.", "mean field": "--"}


def views_table(gradients: xr.Dataset) -> pd.DataFrame:
    """Tabulate measured decay rate, leading Lyapunov exponent and theory's rates side by side.

    Args:
        gradients: from `gradlab.load_gradients`, of a run with probe=[spectral,lyapunov,theory];
            its last training step is used.

    Returns:
        One row per view: `view` ("decay rate", "λ₁", or a theory's name), `rate` (nats per step,
        mean over samples, without exact zeros) and `residual` (decay rate − rate).

    Raises:
        ValueError: the run did not measure one of the three.

    Example:
        >>> gradients = gradlab.load_gradients(runs["path"].iloc[0])
        >>> gradlab.figures.views_table(gradients)["view"].tolist()
        ['decay rate', 'λ₁', 'bound', 'log spectral radius', 'mean field']
    """
    last = _last_step(gradients)
    leading = float(decay.mean_log_norm(last["lyapunov_exponent"].isel(exponent=0).to_numpy()))
    rows = [("decay rate", _decay_rate(last)), ("λ₁", leading)]
    rates = last["theory_rate"].mean("sample")
    rows += [(str(name), float(rates.sel(theory=name))) for name in rates["theory"].to_numpy()]
    table = pd.DataFrame(rows, columns=["view", "rate"])
    return table.assign(residual=table["rate"].iloc[0] - table["rate"])


@style.theme()
def views_figure(runs: pd.DataFrame, point: int | None = None) -> style.Drawn:
    """Draw decay over lag and Lyapunov spectrum side by side, with theory in both.

    The residuals are written below.

    Args:
        runs: from `gradlab.load_runs`; one run, with probe=[spectral,lyapunov,theory].
        point: which of several runs, from 0.

    Raises:
        ValueError: there are several runs, or the run did not measure one of the three.

    Example:
        >>> drawn = gradlab.figures.views(runs, point=0)
    """
    run = _chosen_run(runs, point)
    gradients = load_gradients(run["path"])
    last = _last_step(gradients, remedies.measure(run, list(PROBES.values())))
    table = views_table(gradients)
    look = style.current_style()
    height = 1.7 + 2.2 * look.text  # leaves room for the axis labels
    figure, body = style.new_figure(look.width, height, _title(run, last, table))
    decay_axes, spectrum_axes = body.subplots(1, 2)
    _draw_decay(decay_axes, last, table)
    _draw_spectrum(spectrum_axes, last, table)
    handles, _ = decay_axes.get_legend_handles_labels()
    legends.legend(body, handles)
    rates = {view: units.from_nats(rate) for view, rate in _rates(table).items()}
    rate = rates.pop("decay rate")
    residuals = ", ".join(
        f"{view} {view_rate:+.4f} (residual {rate - view_rate:+.4f})"
        for view, view_rate in rates.items()
        if np.isfinite(rate - view_rate)
    )
    figure = style.finish(figure, [f"Decay rate {rate:+.4f} {units.rate_unit()}; {residuals}."])
    return style.Drawn(figure, table)


def _chosen_run(runs: pd.DataFrame, point: int | None) -> pd.Series:
    runs = selection.every_point(runs)
    if point is None and len(runs) > 1:
        raise ValueError(
            f"the views are those of one run, and there are {len(runs)}: give the folder of a "
            "point, or --point NUMBER."
        )
    if not 0 <= (point or 0) < len(runs):
        raise ValueError(f"point must be a number from 0 to {len(runs) - 1}; got {point}.")
    return selection.with_gradients(runs.iloc[[point or 0]]).iloc[0]


def _title(run: pd.Series, last: xr.Dataset, table: pd.DataFrame) -> str:
    """Return the verdict and its numbers in the unit that is shown; of a run without, the reason.

    (Recorded reasons have one unit, and had another before.)
    """
    rate, length = units.from_nats(_rates(table)["decay rate"]), int(last["t"][-1])
    if run["verdict"] not in VERDICTS or not np.isfinite(rate):
        return str(run["reason"]).partition(";")[0]
    return (
        f"{run['verdict']}: the log norm changes by {rate:+.4f} {units.current_unit()} a step, "
        f"{rate * length:+.1f} over {length} steps"
    )


def _draw_decay(axes: Axes, last: xr.Dataset, table: pd.DataFrame) -> None:
    log_norms = last["jacobian_log_norm"]
    lags = log_norms["t"].to_numpy()
    profiles = [decay.lag_profile(sample) for sample in log_norms.to_numpy()[:, None]]
    for number, profile in enumerate(profiles):
        label = "measured, a line a sample" if number == 0 else "_"  # "_": not in the legend
        axes.plot(lags, profile, color=MEASURED_COLOUR, linewidth=1.2, alpha=0.8, label=label)
    start = float(np.mean([profile[0] for profile in profiles]))
    rates = {view: rate for view, rate in _rates(table).items() if np.isfinite(rate)}
    shown = np.concatenate([*profiles, start + rates.get("λ₁", 0.0) * lags])
    low, high = np.min(shown[np.isfinite(shown)]), np.max(shown[np.isfinite(shown)])
    margin = 1 + 0.2 * (high - low)  # the line of the bound may leave the panel
    rates.pop("decay rate", None)
    for view, rate in rates.items():
        axes.plot(lags, start + rate * lags, **_line_style(view), label=view)
    axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="lag t − k (steps)", ylabel=label_of(log_norms), title="decay over lag")
    units.norm_axis(axes.yaxis)


def _draw_spectrum(axes: Axes, last: xr.Dataset, table: pd.DataFrame) -> None:
    spectrum = lyapunov.mean_spectrum(last)
    exponents = units.from_nats(spectrum["exponent"])
    errors = units.from_nats(spectrum["standard_error"])
    axes.errorbar(
        spectrum["index"], exponents, yerr=errors, color=EXPONENT_COLOUR, fmt=".", markersize=4
    )
    rates = {view: units.from_nats(rate) for view, rate in _rates(table).items()}
    axes.axhline(rates.pop("decay rate"), color=MEASURED_COLOUR, linewidth=1.2)
    for view, rate in rates.items():
        if view != "λ₁":
            axes.axhline(rate, **_line_style(view))
    axes.set(xlabel="index", ylabel=f"Lyapunov exponent\n({units.rate_unit()})", title="spectrum")


def _rates(table: pd.DataFrame) -> dict[str, float]:
    return dict(zip(table["view"], table["rate"].astype(float), strict=True))


def _line_style(view: str) -> dict[str, Any]:
    if view == "λ₁":
        return {"color": EXPONENT_COLOUR, "linewidth": 1.2}
    return {"color": style.GREY, "linewidth": 1.0, "linestyle": THEORY_DASHES.get(view, "--")}


def _last_step(
    gradients: xr.Dataset, remedy: str = f"run with probe=[{','.join(PROBES.values())}]"
) -> xr.Dataset:
    missing = [probe for variable, probe in PROBES.items() if variable not in gradients]
    if missing:
        raise ValueError(f"this run did not measure {', '.join(missing)}: {remedy}.")
    return gradients.isel(step=-1)


def _decay_rate(last: xr.Dataset) -> float:
    log_norms = last["jacobian_log_norm"]
    stride = float(log_norms["t"][1] - log_norms["t"][0])
    return decay.decay_rate(decay.lag_profile(log_norms.to_numpy())) / stride
