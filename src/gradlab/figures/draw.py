"""A map, its decay or a spectrum in somebody's own axes, in their own Matplotlib style.

These take what the engine returns, or a probe's xarray, without a sweep around it.
"""

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from gradlab import decay
from gradlab.figures import map_images, style, units
from gradlab.figures.labels import label_of

Kind: TypeAlias = Literal["exponents", "log singular values"]
BAND, MARKED = 0.2, 64  # opacity; values of a line, at most, for them to be marked


def draw_map(log_norms: ArrayLike | xr.DataArray, ax: Axes | None = None) -> Axes:
    """Draw a map of log norms over (t, k), with a colour bar of the norms.

    Norms below 1 are blue, above 1 red. Products that are exactly zero are grey; pairs that were
    not measured, and k > t, are left empty. The colours end at a factor of 100 or earlier
    (`ax.images[0].set_clim` moves the ends, which are logs, in nats).

    Args:
        log_norms: [..., t, k] in nats, as `gradlab.jacobian_log_norms` returns it, or an xarray
            whose coordinates t and k are the steps (`gradlab.jacobian_map`, a probe's). Leading
            axes are samples, of which the mean is drawn (`decay.mean_log_norm`).
        ax: where to draw; by default a new figure of pyplot's.

    Returns:
        The axes.

    Raises:
        ValueError: it is no map.

    Example:
        >>> ax = gradlab.draw_map(gradlab.jacobian_map(cell, x, of="h", wrt="h"))
        >>> ax.figure.savefig("map.png")
    """
    maps, stride = decay.map_and_stride(log_norms)
    mean = decay.mean_log_norm(maps.reshape(-1, *maps.shape[-2:]), axis=0)
    lower = np.tri(len(mean), dtype=bool)
    shown = np.ma.masked_where(~lower | ~np.isfinite(mean), mean)
    limit = map_images.colour_limit_of(shown.compressed())
    half, last = stride / 2, stride * (len(mean) - 1)
    extent = (-half, last + half, last + half, -half)
    ax = _axes(ax)
    look: Any = {"extent": extent, "origin": "upper", "interpolation": "nearest"}
    image = ax.imshow(shown, cmap=style.norm_colours(), vmin=-limit, vmax=limit, **look)
    zeros = lower & np.isneginf(mean)
    if zeros.any():
        grey = np.zeros((*mean.shape, 4))
        grey[zeros] = (0.6, 0.6, 0.6, 1.0)
        ax.imshow(grey, **look)
        mark = Patch(color="0.6", label="exactly zero")
        ax.legend(handles=[mark], loc="upper right", fontsize="small")
    ax.set(xlabel="k (steps)", ylabel="t (steps)")
    _whole_steps(ax.xaxis, ax.yaxis)
    label = label_of(log_norms)
    bar = ax.figure.colorbar(image, ax=ax, label=label, extend=map_images.extend_of(shown, limit))
    map_images.norm_ticks(bar, limit)
    return ax


def draw_decay(
    log_norms: ArrayLike | xr.DataArray,
    ax: Axes | None = None,
    label: str | None = None,
    **line: Any,
) -> Axes:
    """Draw the mean norm against lag, with a band over the samples; a dot marks the horizon.

    Several calls with the same `ax` lay curves over each other. The axis has the logs in nats and
    shows the norms: powers of ten (`gradlab.figures.theme(unit="nats")`: the logs). If its scale is
    logarithmic it has the norms themselves. The band is from the least to the greatest sample.

    Args:
        log_norms: a map [..., t, k] in nats, plain or xarray, whose leading axes are samples; or
            its `gradlab.lag_profile`.
        ax: where to draw; by default a new figure of pyplot's.
        label: of the line; with one the legend is drawn.
        line: properties of the line, as `Axes.plot` takes them.

    Returns:
        The axes.

    Raises:
        ValueError: it is neither a map nor a profile.

    Example:
        >>> gru = nnx.GRUCell(3, 8, rngs=nnx.Rngs(0))
        >>> ax = gradlab.draw_decay(gradlab.jacobian_map(cell, x), label="RNN")
        >>> ax = gradlab.draw_decay(gradlab.jacobian_map(gru, x), ax, label="GRU")
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['RNN', 'GRU']
    """
    profile, stride = decay.profile_and_stride(log_norms)
    lags = stride * np.arange(len(profile))
    ax = _axes(ax)
    is_log = ax.get_yscale() == "log"  # it has the norms themselves
    on_axis = np.exp if is_log else np.asarray
    values = np.where(np.isfinite(profile), profile, np.nan)
    (curve,) = ax.plot(lags, on_axis(values), label=label, **line)
    if np.ndim(log_norms) > 2:
        maps, _ = decay.map_and_stride(log_norms)
        samples = [decay.lag_profile(x) for x in maps.reshape(-1, *maps.shape[-2:])]
        _band(ax, lags, on_axis(np.stack(samples)), curve.get_color())
    reach = decay.horizon(profile) * stride
    if np.isfinite(reach):
        # The horizon is 1 nat below the first lag that is not exactly zero.
        level = profile[np.isfinite(profile)][0] - 1
        ax.plot(reach, on_axis(level), marker="o", color=curve.get_color(), linestyle="none")
    with units.shown_in("decades" if is_log else None):
        ax.set(xlabel="lag t − k (steps)", ylabel=f"mean {label_of(log_norms)}")
    if not is_log:
        units.norm_axis(ax.yaxis)
    _whole_steps(ax.xaxis)
    if label is not None:
        ax.legend()
    return ax


def draw_spectrum(
    values: ArrayLike | xr.DataArray,
    ax: Axes | None = None,
    label: str | None = None,
    kind: Kind = "exponents",
    **line: Any,
) -> Axes:
    """Draw Lyapunov exponents or log singular values against their index.

    Args:
        values: (..., count), descending: exponents in nats per step, of whose leading axes, the
            samples, the mean and a band are drawn; or log singular values in nats, a line for each
            pair, all of one colour. Of a `gradlab.lyapunov_spectrum`, bars show the standard
            errors; an xarray's attributes name the quantity.
        ax: where to draw; by default a new figure of pyplot's.
        label: of the line; with one the legend is drawn.
        kind: "exponents" or "log singular values", which plain arrays do not tell.
        line: properties of the line, as `Axes.plot` takes them.

    Returns:
        The axes.

    Raises:
        ValueError: there are no values, they are a map, or `kind` is another.

    Example:
        >>> ax = gradlab.draw_spectrum(gradlab.lyapunov_spectrum(cell, x), label="exponents")
        >>> log_values = gradlab.log_singular_values(cell, x[0], [(20, 10)])
        >>> ax = gradlab.draw_spectrum(log_values, kind="log singular values")
    """
    if kind not in get_args(Kind):
        known = ", ".join(map(repr, get_args(Kind)))
        raise ValueError(f"kind must be one of {known}; got {kind!r}.")
    errors = None
    if (exponents := getattr(values, "exponents", None)) is not None:
        values, errors, kind = exponents, np.asarray(values.standard_error), "exponents"  # type: ignore[union-attr]
    spectra = decay.real_numbers(values, "the values of a spectrum")
    if {"t", "k"} <= set(getattr(values, "dims", ())):
        raise ValueError("this is a map of log norms, and no spectrum: type draw_map, draw_decay.")
    if spectra.size == 0 or spectra.ndim == 0:
        raise ValueError(f"a spectrum has the shape (..., count); got {spectra.shape}.")
    spectra = np.where(np.isfinite(spectra), spectra, np.nan).reshape(-1, spectra.shape[-1])
    index = np.arange(1, spectra.shape[-1] + 1)
    ax = _axes(ax)
    if errors is not None:
        errors = np.sqrt(np.mean(errors.reshape(spectra.shape) ** 2, axis=0) / len(spectra))
    line = {"marker": "." if len(index) <= MARKED else "", "label": label} | line
    if kind == "exponents":
        spectra = units.from_nats(spectra)
        errors = None if errors is None else units.from_nats(errors)
        curve = ax.errorbar(index, _over_samples(np.nanmean, spectra), yerr=errors, **line)
        _band(ax, index, spectra, curve[0].get_color())
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0)  # where neither shrinks nor grows
    else:
        first, *others = ax.plot(index, spectra.T, **line)
        for other in others:  # the legend names them once
            other.set(color=first.get_color(), label="_")
    ax.set(xlabel="index", ylabel=_spectrum_label(values, kind))
    _whole_steps(ax.xaxis)
    if kind != "exponents":
        units.norm_axis(ax.yaxis)
    if label is not None:
        ax.legend()
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None and not isinstance(ax, Axes):
        raise ValueError(f"ax must be one Axes, such as axes[0]; got a {type(ax).__name__}.")
    if ax is not None:
        return ax
    from matplotlib import pyplot  # which may open a display

    return pyplot.subplots()[1]


def _whole_steps(*axes: Axis) -> None:
    for axis in (x for x in axes if x.get_scale() == "linear"):
        axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def _band(ax: Axes, x: Any, samples: Float[np.ndarray, "samples n"], colour: Any) -> None:
    """Draw the band from the least to the greatest of several samples."""
    if len(samples) > 1:
        samples = np.where(np.isfinite(samples), samples, np.nan)
        low, high = _over_samples(np.nanmin, samples), _over_samples(np.nanmax, samples)
        ax.fill_between(x, low, high, color=colour, alpha=BAND, linewidth=0)


def _over_samples(statistic: Any, samples: Float[np.ndarray, "samples n"]) -> Any:
    """Return a statistic of the values that are not NaN; NaN where all are."""
    missing = np.isnan(samples).all(axis=0)
    return np.where(missing, np.nan, statistic(np.where(missing, 0.0, samples), axis=0))


def _spectrum_label(values: Any, kind: Kind) -> str:
    named = getattr(values, "attrs", {})
    name = "Lyapunov exponent" if kind == "exponents" else "log singular value"
    name = named["long_name"] if {"long_name", "units"} <= set(named) else name
    if kind == "exponents":
        return f"{name} ({units.rate_unit()})"
    return f"{name} (nats)" if units.current_unit() == "nats" else name.removeprefix("log ")
