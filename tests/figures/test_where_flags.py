"""Every flag that a note below a figure names can be pasted, and shows the points it names."""

import argparse
import re
import shlex
from itertools import product
from math import inf, nan
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from synthetic_sweeps import geometric, text_of, write_point, write_seeds

from gradlab import figures, load_runs
from gradlab.figures import selection
from gradlab.figures.catalogue import WHERE
from gradlab.figures.choice import chosen

FLAG = re.compile(r"--where (.*)\.$")
MORE = re.compile(r" \(and (\d+) more\)")
NUMBERS = st.one_of(
    st.sampled_from([1e-5, 1e-5 * (1 + 1e-12), 1 / 3, 0.333333, 1e300, inf, nan, 1e-300, 0.1]),
    st.floats(allow_nan=True),
    st.integers(-1000, 1000),
)
TEXTS = st.text("aAbB ,.\"'[]$=*~…1e-", max_size=70) | st.sampled_from(
    ["none", "nan", "LSTM", "lstm", "their.Cell", "our.Cell", "data/a.npz", "other/a.npz", "1e-05"]
)
LISTS = st.lists(st.integers(0, 9) | st.sampled_from(["a", "b, c"]), max_size=4)
LEVELS = st.one_of(
    st.lists(NUMBERS, min_size=1, max_size=6),
    st.lists(st.one_of(TEXTS, st.none()), min_size=1, max_size=6),
    st.lists(st.one_of(TEXTS, NUMBERS, st.none(), st.booleans(), LISTS), min_size=1, max_size=6),
)
KEYS = [
    "clip.threshold",
    "model.name",
    "task.path",
    "init._target_",
    "init.pin_gate",
    "my key",
    "x",
]


def parsed(flag: str) -> dict[str, list[str]]:
    """Return what the option of the command makes of a flag that a shell has split."""
    parser = argparse.ArgumentParser()
    parser.add_argument(WHERE.flag, **WHERE.settings)
    where: dict[str, list[str]] = parser.parse_args(["--where", *shlex.split(flag)]).where
    return where


def flags_of(notes: list[str]) -> list[str]:
    return [flag for note in notes if (m := FLAG.search(note)) for flag in re.split(", or ", m[1])]


@settings(max_examples=100)
@given(st.data())
def test_a_flag_below_a_figure_shows_what_it_names(data: st.DataObject) -> None:
    some = st.sets(st.sampled_from(KEYS), min_size=1)
    columns = {key: data.draw(LEVELS, key) for key in data.draw(some)}
    size = max(map(len, columns.values()))
    points = [{k: v[i % len(v)] for k, v in columns.items()} for i in range(size)]
    absent = st.sets(st.sampled_from(sorted(columns)))
    for point in points[1:]:  # as in a folder of sweeps, not all of which have a key
        for key in data.draw(absent):
            del point[key]
    fixed = {"status": "done", "sweep": "a/b"}
    runs = pd.DataFrame([{**x, **fixed, "path": str(i)} for i, x in enumerate(points)])
    usable = selection.readable(runs)
    shown = usable.iloc[: data.draw(st.integers(1, len(usable)))]

    notes = selection.notes(runs, usable, shown)
    flags = flags_of(notes)
    assert ("--where" in "".join(notes)) == bool(flags)
    for flag in flags:
        typed = MORE.sub("", flag)
        ((key, words),) = parsed(typed).items()
        left_out = usable[~usable[key].isin(shown[key])]
        found = chosen(usable, {key: words})
        more = MORE.search(flag)
        count = len(words) + int(more[1] if more else 0)
        assert count == left_out[key].nunique(dropna=False)
        assert found[key].nunique(dropna=False) >= len(words)
        others = set(map(str, found[key])) - set(map(str, left_out[key]))
        assert not others, f"{flag} shows {others} too"


def test_a_flag_counts_the_levels_that_it_does_not_list() -> None:
    runs = pd.DataFrame({"init.gain": np.arange(9.0), "status": "done", "path": "a"})
    (note,) = selection.notes(runs, runs, runs.iloc[:1])
    assert note.endswith("Others: --where init.gain=1,2,3 (and 5 more).")


@pytest.mark.parametrize(
    ("typed", "levels"),
    [
        ("""'x="[1, 2]",none'""", ["[1, 2]", "none"]),
        ("x=0.1,1e-05", ["0.1", "1e-05"]),
        ("""x='it''s',b""", ["its", "b"]),
        ("""'x="say ""no"" to",b'""", ['say "no" to', "b"]),
    ],
)
def test_a_level_with_a_comma_is_in_double_quotes(typed: str, levels: list[str]) -> None:
    assert parsed(typed) == {"x": levels}


def test_a_level_is_found_as_it_is_labelled_where_no_other_has_the_label() -> None:
    levels: dict[str, list[Any]] = {
        "init.gain": [1 / 3, 0.5],
        "clip.threshold": [1.0, inf, nan],
        "model.name": ["lstm", "gru"],
    }
    runs = pd.DataFrame({k: pd.Series(v) for k, v in levels.items()})
    for key, word, index in [
        ("init.gain", "0.333333", 0),
        ("clip.threshold", "none", 1),
        ("clip.threshold", "unknown", 2),
        ("model.name", "LSTM", 0),
    ]:
        assert list(chosen(runs, {key: word}).index) == [index], word


def test_a_component_is_a_key_by_its_own_name(tmp_path: Path) -> None:
    for number, (init, gain) in enumerate(product(["gaussian", "orthogonal"], [1.0, 2.0])):
        write_point(tmp_path / str(number), geometric(), init=init, gain=gain)
    runs = load_runs(tmp_path)
    drawn = figures.decay(runs, where={"init": "orthogonal"})
    assert set(drawn.table["point"]) == {2, 3}
    assert "Shown: 2 of 4 points (orthogonal). Lines" not in text_of(drawn.figure)
    parted = figures.heatmap(runs, row="init", col="init.gain")
    assert {"gaussian", "orthogonal"} <= set(text_of(parted.figure).splitlines())
    named = figures.phase(runs, x="init", y="init.gain").table
    assert {"init._target_", "init.gain"} <= set(named)


def test_a_flag_for_seeds_of_maps_names_one_as_one_is_shown(tmp_path: Path) -> None:
    for gain in (1.0, 2.0):
        write_seeds(tmp_path, gain=gain)
    text = text_of(figures.heatmap(load_runs(tmp_path)).figure).replace("\n", " ")
    assert "Others: --where seed=1 (and 3 more)." in text
