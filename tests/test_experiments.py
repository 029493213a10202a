"""Every file of conf/experiment runs, cut to seconds; the studies that take seconds run whole."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Compose

from gradlab import components
from gradlab.__main__ import CONF
from gradlab.claims.study import load_study
from gradlab.claims.verdicts import judge
from gradlab.config import ConfigError
from gradlab.point import Point, run_point

WHOLE = ("ground_truths", "error_surface", "influence_balancing", "forget_bias")
ORDER_CHAOS = (
    "sizes=[8]",
    "steps=20",
    "map_size=8",
    "map_length=200",
    "spectrum_sizes=[8]",
    "spectrum_steps=20",
    "seeds=[0]",
    "map_seeds=[0]",
    "spectrum_seeds=[0]",
)
FLOSSING = ("units=8", "exponents=6", "flossing=2", "updates=2", "length=50", "seeds=[0]")
PARALLEL = (
    "units=8",
    "gains=2",
    "longest=20",
    "lengths=2",
    "shown=20",
    "seeds=[0]",
    "instrument_gains=[1.0]",
    "instrument_length=10",
    "instrument_seeds=[0]",
)
CUT = {
    "gradient_flossing": FLOSSING,
    "gradient_flossing_full": FLOSSING,
    "order_chaos": ORDER_CHAOS,
    "order_chaos_full": ORDER_CHAOS,
    "critical_gain": ("shares=[0.5,2.0]", "units=8", "steps=20", "seeds=[0]"),
    "glorot_radius": ("sizes=[8,16]", "draws=4", "blocks=2", "roots=2"),
    "lru_forward": (
        "rings=[[0.0,0.9]]",
        "constant_rings=[[0.0,0.9]]",
        "units=8",
        "inputs=4",
        "steps=20",
        "reach_steps=20",
        "reach_units=4",
        "seeds=2",
        "reach_seeds=1",
    ),
    "half_precision": ("units=4", "steps=8", "seeds=[0]"),
    "mnist1d": ("updates=2", "every=1", "batch_size=4", "seeds=[0]"),
    "parallel_rnn": PARALLEL,
    "parallel_rnn_full": PARALLEL,
    "continual_reber": ("seeds=1", "streams=20", "symbols=2000", "whole=100"),
    "cell_path": ("biases=[1.0]", "lags=[1,3]", "seeds=[0]"),
}
FILES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def swept(name: str) -> dict[str, str]:
    """Return what an experiment's file and the files it extends sweep: key to values."""
    written = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    bases = [base for base in written.get("defaults", []) if base in FILES]
    inherited = {key: values for base in bases for key, values in swept(base).items()}
    return inherited | written.get("hydra", {}).get("sweeper", {}).get("params", {})


@pytest.mark.parametrize("name", WHOLE)
def test_a_study_run_whole_comes_to_its_verdicts(composed: Compose, name: str) -> None:
    table = components.build(composed(f"+experiment={name}").measure)
    claims = load_study(Path(__file__).parent.parent, name).claims
    outcomes = {x.id: judge(x, table).outcome for x in claims}
    assert outcomes == {x.id: "observed" if x.test is None else "reproduced" for x in claims}


def paper_scale_is_slow(name: str) -> Any:
    """Mark an experiment at its paper's scale, which runs the same code as the one beside it."""
    return pytest.param(name, marks=pytest.mark.slow if name.endswith("_full") else ())


@pytest.mark.parametrize(
    "name", [paper_scale_is_slow(name) for name in sorted(set(FILES) - set(WHOLE))]
)
def test_an_experiment_cut_to_seconds(composed: Compose, name: str, tmp_path: Path) -> None:
    if name in CUT:
        cut = tuple(f"measure.{change}" for change in CUT[name])
        table = components.build(composed(f"+experiment={name}", *cut).measure)
        assert isinstance(table, pd.DataFrame)
        assert not table.empty
        return
    firsts = {key: str(values).split(",")[0] for key, values in swept(name).items()}
    first = [f"{key}={value}" for key, value in firsts.items() if key != "seed"]
    cut = ("train.steps=1", "train.batch_size=4", "wandb=disabled")
    point = Point(composed(f"+experiment={name}", *first, *cut), tmp_path / "0", name)
    assert point.config.measure is None, "a direct measurement belongs into CUT"
    assert run_point(point)["state"] == "done"


@pytest.mark.parametrize("cases", ["[[1.0]]", "[[-1.0, 0.0]]", "[[1.0, -0.1]]", "[one]"])
def test_the_cases_of_order_chaos_are_checked(composed: Compose, cases: str) -> None:
    with pytest.raises(ConfigError, match="cases"):
        composed("+experiment=order_chaos", f"measure.cases={cases}")
