"""Searches that end points early: by Optuna's rules, on what earlier trials have recorded."""

import json
import pickle
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import Compose
from omegaconf import OmegaConf

import gradlab
from gradlab.components import ConfigError
from gradlab.records import load_gradients, load_metrics, load_status
from gradlab.sweeps.objective import Objective
from gradlab.sweeps.pruning import Pruning
from gradlab.sweeps.refusals import check_curves
from gradlab.sweeps.report import best_of
from hydra_plugins.gradlab_sweeper_search import _write_best

STEPS, EVERY, BATCH = 40, 4, 4
GAIN = "init.gain=interval(0.5,2)"
RATE = "optim.learning_rate=tag(log,interval(1e-4,1e4))"  # the highest diverge
SETTING = ["init.gain", "optim.learning_rate"]
SMALL = (
    "task=echo",
    "task.length=5",
    "task.delay=2",
    "model.hidden_size=4",
    f"train.steps={STEPS}",
    f"train.log_every={EVERY}",
    "probe=frobenius",
    "probe.schedule=ends",
    "wandb=disabled",
    "hydra/sweeper=search",
)
MEDIAN = (*SMALL, GAIN, RATE, "hydra.sweeper.pruner=median", f"hydra.sweeper.n_jobs={BATCH}")
LOSS = Objective("eval/loss", maximised=False)


def curve_of(path: str | Path) -> dict[int, float]:
    """The held-out losses of a point by update, those after training began."""
    rows = load_metrics(path)[["train/step", "eval/loss"]].dropna()
    losses = dict(zip(rows["train/step"].astype(int), rows["eval/loss"], strict=True))
    return {step: loss for step, loss in losses.items() if step}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "sweep"
    gradlab.sweep(*MEDIAN, "hydra.sweeper.n_trials=14", folder=folder)
    return folder


def test_points_end_where_their_best_loss_is_above_the_median_of_earlier_batches(
    searched: Path,
) -> None:
    runs = gradlab.load_runs(searched)
    steps = range(EVERY, STEPS + 1, EVERY)
    complete: list[dict[int, float]] = []
    ended = []
    for first in range(0, len(runs), BATCH):
        batch = []
        for _, run in runs.iloc[first : first + BATCH].iterrows():
            curve = curve_of(run["path"])
            judged = [step for step in steps if STEPS // 4 <= step < STEPS and step in curve]
            for step in judged if len(complete) >= 5 else ():
                losses = np.sort([other[step] for other in complete])
                median = (losses[(len(losses) - 1) // 2] + losses[len(losses) // 2]) / 2
                is_worse = min(loss for at, loss in curve.items() if at <= step) > median
                assert is_worse == (run["status"] == "pruned" and step == max(curve))
            if run["status"] == "diverged":
                curve = {step: curve.get(step, inf) for step in steps}
            ended.append(run["status"])
            batch += [curve] if run["status"] != "pruned" else []
        complete += batch
    assert {"done", "diverged", "pruned"} == set(ended)
    assert "pruned" not in ended[: 2 * BATCH]  # Optuna's rule wants five that are complete


def test_a_pruned_point_is_recorded_as_such_and_not_as_a_whole_run(searched: Path) -> None:
    runs = gradlab.load_runs(searched)
    run = runs[runs["status"] == "pruned"].iloc[0]
    last = max(curve_of(run["path"]))
    assert run["reason"].startswith(f"eval/loss {run['eval/loss']:.4g} after update {last}")
    assert run["train/step"] == last < STEPS
    assert pd.isna(run["verdict"])
    assert list(load_gradients(run["path"])["step"]) == [0]  # its end is not measured
    settings = gradlab.by_setting(runs)
    assert settings["done"].sum() == (runs["status"] == "done").sum() < len(runs)
    assert settings.loc[runs["status"].to_numpy() == "pruned", "eval/loss/mean"].isna().all()


def test_the_overview_is_that_of_the_best_point(searched: Path) -> None:
    runs = gradlab.load_runs(searched)
    done = runs[runs["status"] == "done"]
    assert best_of(runs, LOSS).index.tolist() == [done["eval/loss"].idxmin()]
    most = Objective("eval/loss", maximised=True)
    assert best_of(runs, most).index.tolist() == [done["eval/loss"].idxmax()]
    pruned = runs[runs["status"] == "pruned"]
    assert best_of(pruned, LOSS) is pruned


def test_a_search_asks_as_optuna_does_when_told_what_was_pruned(searched: Path) -> None:
    runs = gradlab.load_runs(searched)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for first in range(0, len(runs), BATCH):
        trials = []
        for number in runs.index[first : first + BATCH]:
            trials.append(study.ask())
            setting = [
                trials[-1].suggest_float("init.gain", 0.5, 2),
                trials[-1].suggest_float("optim.learning_rate", 1e-4, 1e4, log=True),
            ]
            np.testing.assert_allclose(runs.loc[number, SETTING].astype(float), setting, rtol=1e-5)
        for number, trial in enumerate(trials, first):
            run = runs.loc[number]
            for step, loss in curve_of(run["path"]).items():
                trial.report(loss, step)
            if run["status"] == "pruned":
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, run["eval/loss"] if run["status"] == "done" else inf)


def test_a_pruned_search_is_resumed_to_the_same_records(searched: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    gradlab.sweep(*MEDIAN, "hydra.sweeper.n_trials=12", folder=broken)
    kept = [folder for folder in broken.iterdir() if (folder / "status.json").exists()]
    cut, *lost = (x for x in kept if load_status(x)["state"] == "pruned")
    for folder in lost:
        (folder / "status.json").unlink()
    status = load_status(cut) | {"state": "interrupted"}  # killed after its last checkpoint
    (cut / "status.json").write_text(json.dumps(status))
    before = {x: (x / "status.json").read_text() for x in kept if x not in (cut, *lost)}
    whole = gradlab.sweep(*MEDIAN, "hydra.sweeper.n_trials=14", f"sweep.resume={broken}")
    assert all((x / "status.json").read_text() == text for x, text in before.items())
    columns = [*SETTING, "status", "eval/loss", "train/step"]
    expected = gradlab.load_runs(searched)[columns]
    pd.testing.assert_frame_equal(whole[columns], expected, check_exact=True)


def test_vmapped_points_are_pruned_alike(searched: Path, tmp_path: Path) -> None:
    words = ("hydra.sweeper.n_trials=14", "sweep.lanes=vmap")
    runs = gradlab.sweep(*MEDIAN, *words, folder=tmp_path / "sweep")
    assert list(runs["status"]) == list(gradlab.load_runs(searched)["status"])


@pytest.mark.skipif(optuna.__version__.startswith("2."), reason="each process has other brackets")
def test_one_trial_at_a_time_is_pruned_as_optuna_itself_does(tmp_path: Path) -> None:
    runs = gradlab.sweep(
        *SMALL, GAIN, RATE, "hydra.sweeper.pruner=hyperband", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.n_trials=10", folder=tmp_path / "sweep",
    )  # fmt: skip
    pruner = optuna.pruners.HyperbandPruner(EVERY, STEPS)
    sampler = optuna.samplers.TPESampler(seed=0, constant_liar=True)
    study = optuna.create_study(study_name="gradlab", sampler=sampler, pruner=pruner)
    reached = []

    def objective(trial: optuna.Trial) -> float:
        run = runs.loc[trial.number]
        setting = [
            trial.suggest_float("init.gain", 0.5, 2),
            trial.suggest_float("optim.learning_rate", 1e-4, 1e4, log=True),
        ]
        np.testing.assert_allclose(run[SETTING].astype(float), setting, rtol=1e-5)
        losses = curve_of(run["path"])
        for step in range(EVERY, STEPS + 1, EVERY):
            trial.report(losses.get(step, inf), step)
            if trial.should_prune() and step < STEPS:
                reached.append(step)
                raise optuna.TrialPruned
        reached.append(STEPS)
        return losses[STEPS] if run["status"] == "done" else inf

    study.optimize(objective, n_trials=len(runs))
    last = np.array([max(curve_of(path), default=0) for path in runs["path"]])
    pruned = (runs["status"] == "pruned").to_numpy()
    assert pruned.any()
    np.testing.assert_array_equal(np.array(reached)[pruned], last[pruned])
    assert {reached[i] for i in np.flatnonzero(~pruned)} == {STEPS}


def test_a_judge_can_be_sent_to_another_process() -> None:
    def row(step: int, loss: float) -> dict[str, float]:
        return {"train/step": step, "eval/loss": loss}

    done = optuna.trial.create_trial(value=0.1, intermediate_values={4: 0.5, 8: 0.2})
    pruning = Pruning(LOSS, optuna.pruners.MedianPruner(n_startup_trials=1), [4, 8])
    judge = pickle.loads(pickle.dumps(partial(pruning.judge, [done])))()
    assert judge([row(0, 9.0)]) == ""  # before training: no value of the trial's
    assert judge([row(0, 9.0), row(4, 0.5)]) == ""
    assert "eval/loss 0.3 after update 8" in judge([row(0, 9.0), row(4, 0.5), row(8, 0.3)])


def test_points_of_groups_that_train_longer_are_not_compared(composed: Compose) -> None:
    point = composed("train.steps=40").train
    check_curves([point, point], OmegaConf.create({"steps": 40, "log_every": point.log_every}))
    with pytest.raises(ConfigError, match=r"train\.steps differs between them"):
        check_curves([point, composed("train.steps=80").train], OmegaConf.structured(point))


def test_a_search_of_pruned_points_alone_has_no_best(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.tell(study.ask(), state=optuna.trial.TrialState.PRUNED)
    _write_best(study, inf, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("hydra.sweeper.pruner=mean",), "one of median, percentile, halving, hyperband; got mean"),
        (("sweep.objective=jacobian/decay_rate",), "decay_rate is known at the end"),
        (("seed=0,1",), "give one seed instead of 2"),
        (("train.steps=40,80",), "give train.steps one value"),
        ((f"train.log_every={STEPS}",), "needs a value before the last of 40 updates"),
        (("hydra.sweeper.pruner_options={warm:3}",), "pruner=median: .*warm"),
        (("hydra.sweeper.pruner=null", "hydra.sweeper.pruner_options={a:1}"), "give .*pruner too"),
        (("hydra.sweeper.pruner_options={n_warmup_steps:-3}",), "pruner=median: "),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_runs(
    words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        gradlab.sweep(*MEDIAN, *words, folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()
