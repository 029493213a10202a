"""Maps, decay and spectra in a caller's axes show the numbers that they were given."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import xarray as xr
from flax import nnx
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from synthetic_sweeps import geometric

import gradlab
from gradlab import figures
from gradlab.figures.map_picture import BOTTOM, LEFT, RIGHT, TOP, map_picture
from gradlab.jacobian import LyapunovSpectrum


@pytest.fixture(autouse=True)
def _no_display() -> Iterator[None]:
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    yield
    plt.close("all")
    matplotlib.use(backend)


MAPS = geometric(8, (-0.5,), stride=2)["jacobian_log_norm"].isel(step=0)
PLAIN = MAPS.to_numpy()


def bar(ax: Axes) -> Axes:
    return next(axes for axes in ax.figure.axes if axes is not ax)


def test_a_map_has_axes_in_steps_and_a_bar_of_norms() -> None:
    ax = gradlab.draw_map(MAPS)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("k (steps)", "t (steps)")
    assert ax.get_xlim() == (-1, 9)
    assert ax.get_ylim() == (9, -1)  # time runs down
    assert bar(ax).get_ylabel().endswith("_2$")
    ticks = [text.get_text() for text in bar(ax).get_yticklabels()]
    assert ticks == ["$10^{-2}$", "$10^{-1}$", "$1$", "$10^{1}$", "$10^{2}$"]
    shown = ax.images[0].get_array()
    assert shown is not None
    lags = np.subtract.outer(np.arange(0, 9, 2), np.arange(0, 9, 2))
    np.testing.assert_allclose(shown[lags >= 0], -0.5 * lags[lags >= 0], atol=1e-6)
    assert np.ma.getmaskarray(shown)[lags < 0].all()


def test_a_plain_map_counts_from_zero_in_steps_of_one() -> None:
    ax = gradlab.draw_map(jnp.asarray(PLAIN))
    assert ax.get_xlim() == (-0.5, 4.5)
    assert bar(ax).get_ylabel() == "norm"


def test_exact_zeros_are_grey_and_named() -> None:
    with_zeros = PLAIN.copy()
    with_zeros[:, 4, 0] = -np.inf
    ax = gradlab.draw_map(with_zeros)
    grey: Any = ax.images[1].get_array()
    assert [tuple(x) for x in np.argwhere(grey[..., 3] > 0)] == [(4, 0)]
    legend = ax.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "exactly zero"
    assert gradlab.draw_map(PLAIN).get_legend() is None


def test_decay_is_drawn_against_the_lag_in_steps() -> None:
    _, own = plt.subplots()
    ax = gradlab.draw_decay(MAPS, own, label="mine", color="red")
    assert ax is own
    gradlab.draw_decay(gradlab.lag_profile(MAPS), ax, label="again")
    line, dot, again, _ = ax.lines
    for curve in (line, again):
        np.testing.assert_allclose(curve.get_xdata(), [0, 2, 4, 6, 8])
        np.testing.assert_allclose(curve.get_ydata(), [0, -1, -2, -3, -4], atol=1e-6)
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == pytest.approx((2, -1))  # type: ignore[index]
    assert len(ax.collections) == 1  # a profile has no band
    assert line.get_color() == "red"
    assert ax.get_xlabel() == "lag t − k (steps)"
    assert ax.get_ylabel().startswith("mean ")
    with figures.theme(unit="nats"):
        assert gradlab.draw_decay(MAPS).get_ylabel().endswith("(nats)")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine", "again"]  # type: ignore[union-attr]


def test_exponents_are_averaged_and_have_their_errors() -> None:
    exponents = jnp.array([[0.1, -1.0], [0.3, -3.0]])
    ax = gradlab.draw_spectrum(LyapunovSpectrum(exponents, 0.1 * jnp.ones((2, 2))))
    (mean, *_), (bars,) = ax.containers[0][0:1], ax.containers[0][2]
    np.testing.assert_allclose(mean.get_ydata(), np.array([0.2, -2.0]) / np.log(10), rtol=1e-6)
    half = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    np.testing.assert_allclose(half, 0.1 / np.sqrt(2) / np.log(10), rtol=1e-6)
    assert ax.get_ylabel() == "Lyapunov exponent (decades/step)"


def test_singular_values_are_a_line_for_each_pair() -> None:
    values = np.array([[0.0, -1.0, -np.inf], [-2.0, -3.0, -4.0]])
    ax = gradlab.draw_spectrum(values, kind="log singular values", label="pairs")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pairs"]  # type: ignore[union-attr]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, -1, np.nan])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), values[1])
    assert ax.get_ylabel() == "singular value"
    named = xr.DataArray(values, attrs={"long_name": "log gain", "units": "nats"})
    with figures.theme(unit="nats"):
        drawn = gradlab.draw_spectrum(named, kind="log singular values")
    assert drawn.get_ylabel() == "log gain (nats)"


def test_the_callers_style_holds() -> None:
    with matplotlib.rc_context({"lines.linewidth": 7.0, "axes.facecolor": "black"}):
        ax = gradlab.draw_decay(PLAIN)
    assert ax.lines[0].get_linewidth() == 7
    assert ax.get_facecolor() == (0, 0, 0, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: gradlab.draw_map(np.zeros((2, 3))),
        lambda: gradlab.draw_decay(np.zeros((2, 3))),
        lambda: gradlab.draw_spectrum([]),
        lambda: gradlab.draw_spectrum([1.0], kind="values"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_figure(call: Any) -> None:
    with pytest.raises(ValueError, match=r"shape|kind"):
        call()
    assert plt.get_fignums() == []


def test_a_picture_has_the_pixels_of_its_maps_within_its_axes() -> None:
    log_norms = np.where(np.tri(4) > 0, -9.0, -np.inf)
    picture = map_picture([log_norms, log_norms], ["before", "after"], side=40)
    assert picture.shape[0] == TOP + 40 + BOTTOM
    panel = picture[TOP : TOP + 40, LEFT : LEFT + 40].astype(int)
    assert (panel[35, 5] == panel[35, 35]).all()  # both below the diagonal
    assert panel[35, 5, 2] > panel[35, 5, 0]  # blue
    assert panel[5, 35].tolist() == [255] * 4
    beside = picture[:, -RIGHT:]  # the colour bar's labels
    assert (beside[..., :3] < 100).any()


@pytest.mark.parametrize("stride", [1, 3])
def test_a_labelled_map_is_the_engines_with_its_steps(stride: int) -> None:
    cell = nnx.OptimizedLSTMCell(3, 5, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (2, 9, 3))
    options: dict[str, Any] = {"of": "h", "wrt": "c", "norm": "frobenius", "stride": stride}
    maps = gradlab.jacobian_map(cell, inputs, **options)
    np.testing.assert_array_equal(maps, gradlab.jacobian_log_norms(cell, inputs, **options))
    assert maps.dims == ("sample", "t", "k")
    assert maps["t"].to_numpy().tolist() == maps["k"].to_numpy().tolist() == [*range(0, 10, stride)]
    assert maps["t"].attrs["units"] == "steps"
    assert (maps.attrs["of"], maps.attrs["wrt"], maps.attrs["norm"]) == ("h", "c", "frobenius")
    assert maps.attrs["units"] == "nats"
    assert gradlab.jacobian_map(cell, inputs[0]).dims == ("t", "k")


def test_standard_errors_of_a_labelled_map_are_a_coordinate() -> None:
    cell, inputs = nnx.SimpleCell(2, 6, rngs=nnx.Rngs(0)), jnp.ones((5, 2))
    sampled: dict[str, Any] = {"norm": "rms", "method": "sampled", "vectors": 4}
    maps = gradlab.jacobian_map(cell, inputs, **sampled)
    _, errors = gradlab.jacobian_log_norms(cell, inputs, **sampled)
    np.testing.assert_array_equal(maps["standard_error"], errors)


@pytest.mark.slow
def test_a_certificate_of_a_labelled_map_is_in_its_coordinates() -> None:
    cell, inputs = nnx.SimpleCell(2, 4, rngs=nnx.Rngs(0)), jnp.ones((3, 2))
    certified = gradlab.jacobian_map(cell, inputs, certify=True)
    _, certificate = gradlab.jacobian_log_norms(cell, inputs, certify=True)
    for name in ("unresolved", "precision_error"):
        np.testing.assert_array_equal(certified[name], getattr(certificate, name))


def test_an_axis_of_logarithmic_scale_has_the_norms_themselves() -> None:
    axes = plt.subplots()[1]
    axes.set(xscale="log", yscale="log")
    with figures.theme(unit="nats"):
        gradlab.draw_decay(MAPS, axes)
    curve, horizon = axes.lines
    assert isinstance(curve.get_ydata(), np.ndarray)
    np.testing.assert_allclose(curve.get_ydata(), np.exp(-0.5 * np.arange(0, 9, 2)))
    np.testing.assert_allclose(horizon.get_xydata(), [[2, np.exp(-1)]])
    assert "log" not in axes.get_ylabel()
    assert {axis.get_major_locator().__class__.__name__ for axis in (axes.xaxis, axes.yaxis)} == {
        "LogLocator"
    }


def test_what_are_no_axes_or_no_spectrum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one Axes, such as axes\[0\]; got a ndarray"):
        gradlab.draw_map(MAPS, plt.subplots(2)[1])
    with pytest.raises(ValueError, match="a map of log norms, and no spectrum"):
        gradlab.draw_spectrum(MAPS)
