"""Logging measurements to a W&B run that somebody's own code has opened and fills."""

import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gradlab.tracking.media import MAP, map_media

STEP = "train/step"


class UsersRun:
    """Logs to a W&B run beside its owner, whose rows and metrics stay as they are.

    A measurement joins the row that the owner is filling (`commit=False`), or is going to fill
    next, so it neither moves W&B's own step nor is dropped as older than that. "train/step" in the
    same row is the step that it belongs to, to be chosen as the x axis. `define_metric` is not
    called. If the owner has logged nothing since the last measurement, that row is closed first.

    An error of W&B's ends nothing: it is warned of once, and nothing more is logged.
    """

    def __init__(self, run: Any, config: Mapping[str, Any], name: str = "") -> None:
        """Prepare; nothing is logged before `open`.

        Args:
            run: a `wandb.Run`, as `wandb.init` returns it; None: nothing is logged.
            config: nested hyperparameters, of which the run's config gets those that it lacks, with
                the first row.
            name: what all names but "train/step" begin with.

        Raises:
            ValueError: it is none, or the name is none.
        """
        if run is not None and not (hasattr(run, "log") and hasattr(type(run), "step")):
            raise ValueError(
                f"run must be a W&B run, such as wandb.init() returns; got {type(run).__name__}."
            )
        if not isinstance(name, str):
            raise ValueError(f"name must be a text, such as 'test'; got {name!r:.80}.")
        self._run, self._config = run, config
        self._prefix = name and f"{name.rstrip('/')}/"
        self._filling: int | None = None  # W&B's step of the row that the last measurement joined
        # By prefix and training step: those of the rows that have pictures, and the last.
        self._maps: dict[str, dict[int, xr.DataArray]] = {}
        self._pictured: set[int] = set()  # training steps
        self._count = self._shown = 0  # measurements, and how many the pictures logged last show

    @property
    def is_open(self) -> bool:
        """Return whether there is a run that has raised no error yet."""
        return self._run is not None

    def open(self) -> None:
        """Begin to log.

        Raises:
            ValueError: another watcher logs to the run under the same names, each of which W&B
                keeps once in a row.
        """
        if self._run is None:
            return
        if any(x._run == self._run and x._prefix == self._prefix for x in _logging):
            raise ValueError(
                "another watcher logs to this W&B run under the same names, and one would replace "
                "the other's: give gradlab.watch a name=, such as name='test', or finish that."
            )
        _logging.add(self)

    def log(self, row: Mapping[str, float], arrays: Mapping[str, xr.DataArray]) -> None:
        """Log a row of metrics; maps with the first, second, fourth, eighth, … of them.

        Decay curves are of these and of the last: all of thousands nobody could tell apart.

        Args:
            row: the metrics, "train/step" among them; NaN (not measured) is left out.
            arrays: what was measured. Maps (sample, t, k) are those called "jacobian_log_norm", or
                "CELL/jacobian_log_norm".
        """
        if self._run is None:
            return
        for name, array in arrays.items():
            prefix = self._prefix + name.removesuffix(MAP)
            if name == MAP or (name.endswith(MAP) and prefix.endswith("/")):
                before = self._maps.get(prefix, {}).items()
                kept = {at: x for at, x in before if at in self._pictured}
                self._maps[prefix] = kept | {int(row[STEP]): array}
        self._count += 1
        is_power = self._count & (self._count - 1) == 0
        if is_power:
            self._pictured.add(int(row[STEP]))
        measured = {
            name if name == STEP else self._prefix + name: value
            for name, value in row.items()
            if not np.isnan(value)
        }
        self._write(measured, with_maps=is_power, is_new=True)

    def finish(self) -> None:
        """Log the maps up to the last measurement; the run itself is its owner's to finish."""
        _logging.discard(self)
        if self._run is not None and self._shown < self._count:
            self._write({}, with_maps=True, is_new=False)

    def _write(self, row: dict[str, Any], *, with_maps: bool, is_new: bool) -> None:
        try:
            for prefix, by_step in self._maps.items() if with_maps else ():
                joined = xr.concat(list(by_step.values()), dim="step", combine_attrs="override")
                media = map_media(joined.assign_coords(step=list(by_step)))
                row |= {f"{prefix}{name}": x for name, x in media.items()}
                self._shown = self._count
            self._run.log({}, commit=False)  # raises on a finished run, whose step is waited for
            if self._config:
                filled = _filled(dict(self._run.config), self._config)
                added = {key: filled[key] for key in self._config}
                self._run.config.update(added, allow_val_change=True)
                self._config = {}
            if is_new and self._run.step == self._filling:
                self._run.log({}, commit=True)
            self._run.log(row, commit=False)
            self._filling = self._run.step
        except Exception as error:
            self._run = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            text = f"gradlab.watch logs nothing more to your W&B run: {reason}"
            warnings.warn(text, RuntimeWarning, stacklevel=5)


_logging: weakref.WeakSet[UsersRun] = weakref.WeakSet()


def _filled(config: Any, defaults: Any) -> Any:
    """Return a nested config with what it lacks of another."""
    if not (isinstance(config, Mapping) and isinstance(defaults, Mapping)):
        return config
    own = {key: _filled(value, defaults.get(key)) for key, value in config.items()}
    return {**defaults, **own}
