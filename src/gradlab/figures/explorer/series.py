"""The series that the page shows of a setting: the mean over its seeds, and each seed.

A series is the maps and curves of one setting, or of one run, over training.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradlab import decay
from gradlab.figures import moments, selection
from gradlab.figures.explorer.counts import tally, word
from gradlab.figures.explorer.mean_curve import Reading, mean_curve, note, share
from gradlab.figures.explorer.packing import pack
from gradlab.figures.labels import level_label, point_label
from gradlab.figures.map_images import evenly
from gradlab.figures.units import Unit, from_nats

FIRST_LAGS = 16  # all shown: where curves rise


class Kept(NamedTuple):
    """The size of what the page holds of a run, and the unit that it shows it in."""

    cells: int
    steps: int
    unit: Unit


class Run(NamedTuple):
    """The measurements of one run, from training step to training step."""

    name: str
    status: str
    maps: xr.DataArray  # (step, sample, t, k), nats
    steps: list[int]

    def stride(self) -> int:
        """Return the time steps from one row of a map to the next."""
        first, second = self.maps["t"].to_numpy()[:2]
        return int(second - first)

    def averaged(self) -> list[int]:
        """Return the training steps at which it is in a mean: if it diverged, only the first."""
        return self.steps[:1] if self.status == "diverged" else self.steps

    def averaged_at(self, step: int) -> int | None:
        """Return the training step whose map is in the mean at another; None: it has none.

        A training that was done earlier ended with the network that it has later.
        """
        last = self.steps[-1]
        if self.status == "done" and step > last:
            return last
        return step if step in self.averaged() else None


def settings(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name and the runs of each setting, in order: runs that differ in their seed alone.

    Args:
        runs: from `selection.readable`.
    """
    keys = [key for key in selection.varying_keys(runs) if key != "seed"]
    if selection.pools_sweeps(runs):
        keys = ["sweep", *keys]
    if not keys:
        yield level_label("model.name", runs["model.name"].iloc[0]), runs
        return
    ranks = [
        pd.Index(selection.levels_of(runs, key)).get_indexer(pd.Index(runs[key]))
        for key in reversed(keys)
    ]
    ordered = runs.iloc[np.lexsort(ranks)]  # by the first key, then the second, …
    for _, group in ordered.groupby(keys, sort=False, dropna=False):
        yield point_label(group.iloc[0], keys), group


def setting_series(
    name: str, rows: pd.DataFrame, measured: pd.Index, kept: Kept
) -> list[dict[str, Any]]:
    """Return the series of a setting; of runs measured at different time steps, one for each.

    Args:
        name: of the setting.
        rows: its runs.
        measured: the index of the runs that have maps. The others count as seeds of the series, if
            it is one.
        kept: of each run.

    Returns:
        Each with `name`, `model`, `status` (such as "5 seeds, 1 diverged"), `unmeasured` (the seeds
        that have no map, such as "seed 3 (failed)"), `quantity`, `t` and
        `lags` (those kept, steps), `measured` (how many t and training `steps` there are), `maps`,
        `values` (their log norms for k ≤ t, from `pack`) and `seeds`, the series of its runs, or []
        if it is one run. A map has `step` (of training) and the entries of `mean_curve`. Over
        several seeds its values are means of those that are not exactly zero, and it has `seeds`
        (of how many it is, such as "4 of 5 seeds"), `note` (what is shown) and `of` (the seeds'
        maps that it is the mean of: the index of each, null for a seed that has none).
    """
    by_times: dict[tuple[int, ...], list[Run]] = {}
    names, has_map = _names(rows), rows.index.isin(measured)
    for run in _load(names[has_map], rows[has_map]):
        by_times.setdefault(tuple(run.maps["t"].to_numpy().tolist()), []).append(run)
    is_one = len(by_times) == 1
    others = zip(names[~has_map], rows["status"][~has_map], strict=True) if is_one else ()
    unmeasured = [(seed, word(status, has_map=False)) for seed, status in others]
    return [
        _series(name if is_one else f"{name}, T = {times[-1]}", runs, unmeasured, kept)
        | {"model": str(rows["model.name"].iloc[0])}
        for times, runs in by_times.items()
    ]


def common_steps(runs: Sequence[Run], most: int) -> list[int]:
    """Return the training steps of a mean: those that all runs have in it, and the last of all.

    A run that diverged or failed early takes no step from the others.

    Args:
        runs: of a setting.
        most: steps; of more, evenly spread ones are kept.
    """
    whole = [run.averaged() for run in runs if run.status in ("done", "running")]
    whole = whole or [run.averaged() for run in runs]
    common = set(whole[0]).intersection(*whole)
    return _evenly(sorted(common | {max(steps[-1] for steps in whole)}), most)


def _evenly(steps: Sequence[int], most: int) -> list[int]:
    return [steps[i] for i in evenly(len(steps), most)]


def _names(rows: pd.DataFrame) -> pd.Index:
    """Return the name of each run of a setting: its seed, or its folder if that does not tell."""
    seeds = rows.get("seed")
    if seeds is None or seeds.isna().any() or seeds.duplicated().any():
        return pd.Index([Path(path).name for path in rows["path"]])
    return pd.Index([f"seed {seed}" for seed in seeds])


def _load(names: Iterable[str], rows: pd.DataFrame) -> list[Run]:
    loaded = [moments.load_measured(row, "jacobian_log_norm") for _, row in rows.iterrows()]
    maps = [measured["jacobian_log_norm"] for measured in loaded]
    return [
        Run(name, str(status), log_norms, log_norms["step"].to_numpy().tolist())
        for name, status, log_norms in zip(names, rows["status"], maps, strict=True)
    ]


def _series(
    name: str, runs: list[Run], unmeasured: Sequence[tuple[str, str]], kept: Kept
) -> dict[str, Any]:
    status = tally(
        [*(word(run.status, has_map=True) for run in runs), *(why for _, why in unmeasured)]
    )
    about = {
        "name": name,
        "status": status,
        "unmeasured": [f"{seed} ({why})" for seed, why in unmeasured],
    }
    count = len(runs) + len(unmeasured)
    steps = common_steps(runs, kept.steps)
    each = [_readings(run, steps, kept) for run in runs]
    alone = [_run_series(run, maps, kept) for run, maps in zip(runs, each, strict=True)]
    if count == 1:
        return alone[0] | about | {"seeds": []}
    maps, values = [], []
    for step in steps:
        averaged = [run.averaged_at(step) for run in runs]
        readings = [have[at] for have, at in zip(each, averaged, strict=True) if at is not None]
        values.append(decay.mean_log_norm(np.stack([x.log_norms for x in readings]), axis=0))
        of = [
            list(have).index(at) if at is not None else None
            for have, at in zip(each, averaged, strict=True)
        ]
        curve = mean_curve(readings, alone[0]["lags"], runs[0].stride(), kept.unit)
        about_mean = {"seeds": share(len(readings), count), "note": note(readings, count)}
        maps.append({"step": step, "of": of} | about_mean | curve)
    return {
        **alone[0],
        **about,
        "measured": alone[0]["measured"] | {"steps": len({x for run in runs for x in run.steps})},
        "maps": maps,
        "values": pack(from_nats(np.stack(values), kept.unit)),
        "seeds": alone,
    }


def _readings(run: Run, steps: Sequence[int], kept: Kept) -> dict[int, Reading]:
    """Return what a run has at the training steps of a mean; if it diverged, at its own."""
    times = evenly(run.maps.sizes["t"], kept.cells)
    row, column = (times[i] for i in np.tril_indices(len(times)))
    readings = {}
    own = (
        _evenly(run.steps, kept.steps) if run.status == "diverged" else map(run.averaged_at, steps)
    )
    for step in dict.fromkeys(own):
        if step is not None:
            samples = run.maps.sel(step=step).to_numpy().astype(float)
            log_norms = decay.mean_log_norm(samples[:, row, column], axis=0)
            profile, zeros = decay.lag_profile(samples), decay.zero_share(samples)
            readings[step] = Reading(log_norms, profile, zeros)
    return readings


def _run_series(run: Run, readings: dict[int, Reading], kept: Kept) -> dict[str, Any]:
    t = run.maps["t"].to_numpy()
    times = evenly(len(t), kept.cells)
    lags = (t[np.union1d(np.arange(min(FIRST_LAGS + 1, len(t))), times)] - t[0]).tolist()
    return {
        "name": run.name,
        "status": word(run.status, has_map=True),
        "quantity": str(run.maps.attrs.get("long_name", "log norm")),
        "t": t[times].tolist(),
        "measured": {"t": len(t), "steps": len(run.steps)},
        "lags": lags,
        "maps": [
            {"step": step} | mean_curve([reading], lags, run.stride(), kept.unit)
            for step, reading in readings.items()
        ],
        "values": pack(from_nats(np.stack([x.log_norms for x in readings.values()]), kept.unit)),
    }
