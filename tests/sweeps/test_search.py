"""Sweepers that draw points from intervals, and that search: by the values that points return."""

import sys
from math import inf, nan
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from conftest import gradlab as command
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

import gradlab
from gradlab.components import ConfigError
from gradlab.config import Sweep
from gradlab.sweeps.objective import Objective, is_search, objective_of
from hydra_plugins.gradlab_sweeper_sobol import Interval, design, interval_of

SMALL = (
    "task=echo",
    "task.length=5",
    "task.delay=2",
    "model.hidden_size=4",
    "train.steps=4",
    "probe=frobenius",
    "probe.schedule=ends",
    "wandb=disabled",
)
GAIN = "init.gain=interval(0.5,2)"
RATE = "optim.learning_rate=tag(log,interval(1e-4,1e-1))"
SEARCH = (*SMALL, "hydra/sweeper=search", "hydra.sweeper.n_jobs=2", GAIN, RATE)
DONE = {"state": "done", "summary": {"eval/loss": 0.25, "eval/accuracy": 0.5, "lyapunov/max": -2.0}}
SETTING = ["init.gain", "optim.learning_rate"]


@given(
    st.integers(1, 40), st.integers(1, 5), st.sampled_from(["sobol", "random"]), st.integers(0, 9)
)
def test_a_design_lies_in_the_unit_cube_and_grows(
    count: int, keys: int, method: str, seed: int
) -> None:
    points = design(count, keys, method, seed)
    assert points.shape == (count, keys)
    assert (points >= 0).all()
    assert (points < 1).all()
    np.testing.assert_array_equal(design(count + 9, keys, method, seed)[:count], points)


def test_a_sobol_sequence_fills_each_part_of_an_interval_evenly() -> None:
    counts = np.histogramdd(design(64, 2, "sobol", 3), bins=8, range=[(0, 1)] * 2)[0]
    np.testing.assert_array_equal(counts, 1)  # a (0, 6, 2)-net in base 2, as Sobol 1967 proves


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6), st.booleans(), st.floats(0, 1, exclude_max=True))
def test_words_of_an_interval_lie_in_it(
    low: float, ratio: float, is_log: bool, share: float
) -> None:
    high = low * ratio
    tag = "tag(log,{})" if is_log else "{}"
    (word,) = OverridesParser.create().parse_overrides(
        [f"k={tag.format(f'interval({low},{high})')}"]
    )
    interval = interval_of(word)
    assert interval == Interval("k", low, high, is_log)
    value = interval.at(share)
    expected = low * ratio**share if is_log else low + (high - low) * share
    assert value == pytest.approx(expected)
    assert float(interval.word(value).removeprefix("k=")) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("is_log", [False, True])
def test_whole_numbers_include_both_ends(is_log: bool) -> None:
    values = [Interval("k", 2, 5, is_log).at(share) for share in np.linspace(0, 0.999, 99)]
    assert set(values) == {2, 3, 4, 5}
    assert Interval("+k", 2, 5, is_log).word(values[0]) == "+k=2"


def test_drawn_points_are_crossed_with_the_values_of_other_keys(tmp_path: Path) -> None:
    runs = gradlab.sweep(
        *SMALL, GAIN, RATE, "seed=0,1", "hydra/sweeper=sobol", "hydra.sweeper.points=3",
        folder=tmp_path / "sweep",
    )  # fmt: skip
    assert list(runs["status"]) == ["done"] * 6
    (one, other) = (group[SETTING].to_numpy() for _, group in runs.groupby("seed"))
    np.testing.assert_array_equal(one, other)
    gains = 0.5 + 1.5 * design(3, 2, "sobol", 0)[:, 0]
    np.testing.assert_allclose(one[:, 0], gains, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "direction", "status", "value"),
    [
        ("eval/loss", None, DONE, 0.25),
        ("eval/accuracy", None, DONE, 0.5),
        ("eval/accuracy", "maximize", DONE, 0.5),
        ("lyapunov/max", None, DONE, 2.0),  # nearest 0
        ("eval/loss", None, {"state": "diverged", "summary": {"eval/loss": 0.1}}, inf),
        ("eval/accuracy", None, {"state": "failed"}, -inf),
        ("own/number", "maximize", {"state": "done", "summary": {"own/number": nan}}, -inf),
    ],
)
def test_the_objective_of_a_point(
    name: str, direction: str | None, status: dict, value: float
) -> None:
    assert objective_of({"direction": direction}, Sweep(objective=name)).of(status) == value


def test_an_objective_that_is_searched_for_the_wrong_way_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"higher it is: type hydra\.sweeper\.direction=maximize"):
        objective_of({"direction": "minimize"}, Sweep(objective="eval/accuracy"))
    with pytest.raises(ConfigError, match="one number"):
        objective_of({"direction": ["minimize", "maximize"]}, Sweep())


def test_an_objective_that_the_points_lack_names_those_they_have() -> None:
    with pytest.raises(
        ConfigError, match="eval/acuracy is no number of these points: eval/accuracy"
    ):
        Objective("eval/acuracy", maximised=True).of(DONE)


def test_a_product_of_values_is_no_search() -> None:
    assert not is_search({"_target_": "hydra_plugins.gradlab_sweeper.ProductSweeper"})
    assert is_search({"_target_": "hydra_plugins.hydra_optuna_sweeper.OptunaSweeper"})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search") / "sweep"
    gradlab.sweep(*SEARCH, "hydra.sweeper.n_trials=6", folder=folder)
    return folder


def test_a_search_asks_as_optuna_does_when_told_the_losses(searched: Path) -> None:
    runs = gradlab.load_runs(searched)
    assert len(runs) == 6
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for first in (0, 2, 4):
        trials = [study.ask() for _ in range(2)]
        for number, trial in enumerate(trials, first):
            setting = [
                trial.suggest_float("init.gain", 0.5, 2),
                trial.suggest_float("optim.learning_rate", 1e-4, 1e-1, log=True),
            ]
            np.testing.assert_allclose(runs.loc[number, SETTING].astype(float), setting, rtol=1e-5)
        for number, trial in enumerate(trials, first):
            study.tell(trial, runs.loc[number, "eval/loss"])
    best = yaml.safe_load((searched / "optimization_results.yaml").read_text())
    assert best["best_value"] == study.best_value == runs["eval/loss"].min()
    assert best["best_params"] == study.best_params


def test_a_search_that_is_resumed_goes_on_where_it_ended(searched: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    first = gradlab.sweep(*SEARCH, "hydra.sweeper.n_trials=4", folder=broken)
    before = (broken / "0/status.json").read_text()
    whole = gradlab.sweep(*SEARCH, "hydra.sweeper.n_trials=6", f"sweep.resume={broken}")
    expected = gradlab.load_runs(searched)
    assert len(first) == 4
    assert (broken / "0/status.json").read_text() == before  # no point ran twice
    columns = [*SETTING, "eval/loss", "jacobian/decay_rate"]
    pd.testing.assert_frame_equal(whole[columns], expected[columns], check_exact=True)


def test_a_trial_is_judged_by_the_mean_of_its_seeds(tmp_path: Path) -> None:
    runs = gradlab.sweep(*SEARCH, "seed=3,4", "hydra.sweeper.n_trials=2", folder=tmp_path / "sweep")
    assert list(runs["seed"]) == [3, 4, 3, 4]
    means = runs.groupby("init.gain")["eval/loss"].mean()
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(means.min(), rel=1e-12)


def test_points_that_diverge_do_not_end_a_search(tmp_path: Path) -> None:
    rate = "optim.learning_rate=tag(log,interval(1e-4,1e5))"
    runs = gradlab.sweep(*SEARCH[:-1], rate, "hydra.sweeper.n_trials=6", folder=tmp_path / "sweep")
    assert {"done", "diverged"} == set(runs["status"])
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    done = runs[runs["status"] == "done"]
    assert best["best_value"] == done["eval/loss"].min()


def test_a_plan_of_a_search_shows_its_first_points_and_runs_none(tmp_path: Path) -> None:
    assert gradlab.sweep(*SEARCH, "--dry", folder=tmp_path / "sweep").empty
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("hydra/sweeper=search",), "has nothing to search"),
        (("hydra/sweeper=sobol",), "draws points from intervals"),
        (("hydra/sweeper=search", "init.gain=interval(2,1)"), "from a number to a larger one"),
        (("hydra/sweeper=sobol", "init.gain=tag(log,interval(0,1))"), "begins above 0"),
        (("hydra/sweeper=search", GAIN, "hydra.sweeper.n_trials=0"), "an integer from 1; got 0"),
        (("hydra/sweeper=search", GAIN, "hydra.sweeper.sampler=Best"), "one of Optuna's"),
        (("hydra/sweeper=sobol", GAIN, "hydra.sweeper.method=grid"), "one of sobol, random"),
        (("hydra/sweeper=search", GAIN, "hydra/launcher=basic"), "hydra/launcher=fused"),
    ],
)
def test_wrong_searches_are_refused(words: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        gradlab.sweep(*SMALL, *words, folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'gradlab\[search\]'"):
        gradlab.sweep(*SEARCH, folder=tmp_path / "sweep")


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_hydras_own_sweeper_by_optuna_gets_the_objective(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs hydra-optuna-sweeper")
    done = command(
        *SMALL, "optim.learning_rate=tag(log,interval(1e-4,1e5))", GAIN, "hydra/sweeper=optuna",
        "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=3", "hydra.sweeper.sampler.seed=0",
        f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = gradlab.load_runs(tmp_path / "sweep")
    assert set(runs["status"]) == {"done", "diverged"}
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert best["best_value"] == runs.loc[runs["status"] == "done", "eval/loss"].min()
