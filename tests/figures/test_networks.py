"""Sweeps over whole networks, whose settings vary together, are laid out by network."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_sweeps import geometric, metrics_with, text_of, write_point

from gradlab import figures, load_runs
from gradlab.figures import style
from gradlab.figures.layout import with_line_style
from gradlab.figures.networks import NETWORK, with_networks
from gradlab.figures.selection import comparable

NETWORKS: dict[str, dict[str, Any]] = {  # as conf/network/ sets them
    "RNN, identity": {"model.name": "rnn", "init._target_": "identity", "model.other_std": 0.001},
    "LSTM, glorot": {"model.name": "lstm", "init._target_": "glorot", "bias.longest": 8.0},
    "RNN, orthogonal": {"model.name": "rnn", "init._target_": "orthogonal"},
}
KEYS = ["model.name", "model.other_std", "init._target_", "bias.longest"]


def sweep(networks: dict[str, dict[str, Any]], **crossed: list[Any]) -> pd.DataFrame:
    """Return runs of some networks at every combination of other levels."""
    rows = pd.DataFrame(networks.values()).reindex(columns=KEYS)
    for key, levels in crossed.items():
        rows = rows.merge(pd.DataFrame({key.replace("_", "."): levels}), how="cross")
    return comparable(rows)


def test_networks_are_named_by_what_tells_them_apart() -> None:
    runs, keys = with_networks(sweep(NETWORKS), KEYS)
    assert keys == [NETWORK]
    assert list(runs[NETWORK]) == list(NETWORKS)
    two = {**NETWORKS, "LSTM, glorot, longest 64": NETWORKS["LSTM, glorot"] | {"bias.longest": 64}}
    runs, _ = with_networks(sweep(two), KEYS)
    assert sorted(runs[NETWORK]) == [
        "LSTM, glorot, longest 64",
        "LSTM, glorot, longest 8",
        "RNN, identity",
        "RNN, orthogonal",
    ]


def test_what_is_swept_beside_networks_stays_a_key_and_lengths_are_pinned() -> None:
    runs, keys = with_networks(sweep(NETWORKS, init_gain=[1, 2]), [*KEYS, "init.gain"])
    assert keys == [NETWORK, "init.gain"]
    assert set(runs[NETWORK]) == set(NETWORKS)
    runs, keys = with_networks(sweep(NETWORKS, task_length=[4, 8]), [*KEYS, "task.length"])
    assert keys == [NETWORK]
    assert set(runs["task.length"]) == {8}


@pytest.mark.parametrize("missing", [0, 1])
def test_a_sweep_over_crossed_keys_stays_as_it_is(missing: int) -> None:
    levels = {"model.name": ["rnn", "lstm"], "init.gain": [1, 2, 4], "task.length": [4, 8]}
    runs = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)
    runs = runs[missing:]  # as if one had failed
    same, keys = with_networks(runs, list(levels))
    assert keys == list(levels)
    pd.testing.assert_frame_equal(same, runs)


def test_networks_of_a_model_have_the_whole_range_of_its_shades() -> None:
    runs, _ = with_networks(sweep(NETWORKS), KEYS)
    lines = with_line_style(runs, NETWORK).set_index(NETWORK)["colour"]
    light, dark = style.shades(style.MODEL_COLOURS["rnn"], 2)
    assert (lines["RNN, identity"], lines["RNN, orthogonal"]) == (light, dark)
    assert lines["LSTM, glorot"] == style.MODEL_COLOURS["lstm"]


def test_figures_show_and_name_every_network_without_blank_panels(tmp_path: Path) -> None:
    for number, (model, bias) in enumerate((("rnn", "a"), ("lstm", "b"), ("gru", "c"))):
        settings: dict[str, Any] = {"model": model, "bias": bias, "metrics": metrics_with([2.0, 1])}
        write_point(
            tmp_path / str(number), geometric(), **settings, width=np.nan if number else 4.0
        )
    runs = load_runs(tmp_path)
    for draw in (figures.overview, figures.heatmap, figures.decay, figures.clipping):
        drawn = draw(runs)
        assert set(drawn.table["point"]) == {0, 1, 2}
        text = text_of(drawn.figure)
        assert [name for name in ("RNN", "LSTM", "GRU") if name not in text] == []
        assert all(axes.has_data() for axes in drawn.figure.axes)
        assert "Shown" not in text
        assert "3 seeds" not in text


def test_networks_that_have_no_room_are_named_with_the_flag_that_shows_them(tmp_path: Path) -> None:
    for number in range(8):
        model, bias = ("rnn", "lstm")[number % 2], f"b{number}"
        write_point(tmp_path / str(number), geometric(4), model=model, bias=bias)
    runs = load_runs(tmp_path)
    text = text_of(figures.overview(runs).figure).replace("\n", " ")
    said = "Networks left out: RNN, bias b6; LSTM, bias b7; the first: --where model.name=RNN "
    assert said + "task.bias=b6." in text
    shown = figures.overview(runs, where={"model.name": "RNN", "task.bias": "b6"})
    assert set(shown.table["point"]) == {6}
