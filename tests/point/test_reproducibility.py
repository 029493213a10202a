"""One seed gives the same bits, whatever runs beside it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import Compose

from gradlab import load_gradients
from gradlab.point import Point, run_point
from gradlab.records import load_metrics

SMALL = ("task.length=16", "train.steps=40", "wandb=disabled", "train.checkpoint_seconds=inf")


def test_neighbours_in_other_threads_change_no_bit(composed: Compose, tmp_path: Path) -> None:
    config, other = composed(*SMALL), composed(*SMALL, "model=gru", "probe.jacobian=null")
    alone = Point(config, tmp_path / "sweep" / "alone", "alone")
    assert run_point(alone)["state"] == "done"
    beside = [
        Point(which, tmp_path / "sweep" / str(number), str(number))
        for number, which in enumerate((config, other, config, config))
    ]
    with ThreadPoolExecutor(2) as lanes:
        assert {status["state"] for status in lanes.map(run_point, beside)} == {"done"}
    for point in (beside[0], *beside[2:]):
        assert load_metrics(point.folder).equals(load_metrics(alone.folder))
        assert load_gradients(point.folder).equals(load_gradients(alone.folder))
