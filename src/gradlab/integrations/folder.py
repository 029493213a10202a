"""The folder in which a watcher keeps what it has measured of one cell, as a point of a sweep."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab import decay, records, sentences
from gradlab.point.recorder import now, process_status
from gradlab.probes import Measurement, join_steps, split_steps
from gradlab.records import leases

Row = dict[str, float]
DIVERGED = "diverged/update"
AT_ONCE = 5.0  # seconds that writing may take in any case, and
SHARE = 0.1  # of the time that passes, beyond them


class WatchFolder:
    """Keeps the rows and maps of one cell in a folder, whole after every writing.

    All of them are written anew each time: at once, unless writing has taken more than its share of
    the time so far, and at the end. So many measurements cost no more than their number, and a
    process that is killed loses those of the last ten times (1 / `SHARE`) that one writing takes.

    Attributes:
        length: the time steps of the sequences, which the verdict depends on.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], length: int, *, cells: int = 1
    ) -> None:
        """Prepare the records; nothing is written before `open`.

        Args:
            folder: of this cell.
            config: the run's, and what figures need.
            length: the time steps of the sequences.
            cells: how many share the time for writing.
        """
        self.folder = folder
        self.length = length
        self._cells = cells
        self._writing = 0.0  # seconds so far
        self._is_written = True  # all that was added
        self._config = plain(config)
        self._rows: list[Row] = []
        self._measured: dict[int, Measurement] = {}
        self._started = time.perf_counter()
        self._status: dict[str, Any] = process_status()

    def open(self, step: int, overwrite: bool) -> None:
        """Begin the records, or go on with those of the same run up to an earlier step.

        Args:
            step: the first that is measured now. Earlier records of `step` and later are dropped.
            overwrite: delete what another run has recorded in the folder.

        Raises:
            ValueError: the folder has the records of another run, and they are to stay.
            RecordError: it cannot be written.
        """
        if other := leases.take(self.folder):
            raise ValueError(
                f"{str(self.folder)!r} is written by {other}: give another folder, or end that "
                f"({other.end})."
            )
        try:
            if overwrite:  # a checkpoint in the folder may be of the training loop
                for name in (records.STATUS, records.METRICS, records.GRADIENTS):
                    (self.folder / name).unlink(missing_ok=True)
            elif any((self.folder / name).exists() for name in (records.STATUS, records.METRICS)):
                self._go_on(step)
            # The presets that studies tell runs apart by, of which there are none.
            choices = "hydra: {runtime: {choices: {}}}\n"
            records.write_whole(self.folder / records.HYDRA, lambda path: path.write_text(choices))
            records.save_config(self.folder, self._config, self._status)
        except BaseException:
            leases.release(self.folder)
            raise

    def add(self, row: Row, measured: Measurement) -> None:
        """Record a row of metrics, which has "train/step", and what was measured at that step.

        Raises:
            RecordError: it cannot be written.
        """
        self._rows.append(row | measured.metrics)
        if measured.arrays:
            self._measured[int(row["train/step"])] = measured
        self._is_written = False
        passed = time.perf_counter() - self._started
        if self._writing * self._cells <= AT_ONCE + SHARE * passed:
            self._write()

    def finish(self, state: str, reason: str = "") -> None:
        """Write what is not written yet, and end the records.

        Args:
            state: "done", "failed" or "interrupted"; a network that could not be measured last has
                "diverged" instead of "done".
            reason: of a state that is not "done".

        Raises:
            RecordError: it cannot be written.
        """
        if state == "done" and self._rows and DIVERGED in self._rows[-1]:
            state = "diverged"
        with contextlib.ExitStack() as closing:  # upwards, whatever fails
            closing.callback(leases.release, self.folder)
            closing.callback(self._end, state, reason)
            if not self._is_written:
                self._write()

    def _write(self) -> None:
        begun = time.perf_counter()
        try:
            summary, reason = self._summary()
            self._status |= {"summary": summary, "reason": reason}
            records.save_metrics(self.folder, pd.DataFrame(self._rows), self._status)
            if self._measured:
                records.save_gradients(self.folder, join_steps(self._measured), self._status)
            self._is_written = True
        finally:
            self._writing += time.perf_counter() - begun

    def _end(self, state: str, reason: str) -> None:
        self._status |= {
            "state": state,
            "reason": reason or self._status.get("reason", ""),
            "files": records.settled(self.folder, self._status.get("files", {})),
            "finished": now(),
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        records.save_status(self.folder, self._status)

    def _go_on(self, step: int) -> None:
        """Restore the rows and maps of an earlier part of this run.

        Raises:
            ValueError: the folder holds those of another run.
        """
        other = f"{str(self.folder)!r} holds the records of another run"
        instead = "give another folder, or overwrite=True to delete them."
        try:
            earlier = records.load_verified(self.folder)
            config = records.load_yaml(self.folder / records.CONFIG)
            metrics = records.load_metrics(self.folder)
        except (OSError, ValueError) as error:
            raise ValueError(f"{other}, which are not whole ({error}): {instead}") from error
        ours, theirs = records.flatten(self._config), records.flatten(config)
        keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
        if keys:
            raise ValueError(f"{other}: config differs in {', '.join(sorted(keys))}; {instead}")
        begun = int(metrics["train/step"].min())
        if begun >= step:
            raise ValueError(
                f"{other}, which began at step {begun}; this one begins at {step} and cannot go on "
                f"from there: {instead}"
            )
        before = metrics[metrics["train/step"] < step].to_dict("records")
        self._rows = [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in before]
        self._status["files"] = earlier.get("files", {})
        if (self.folder / records.GRADIENTS).exists():
            measured = split_steps(records.load_gradients(self.folder))
            self._measured = {at: x for at, x in measured.items() if at < step}

    def _summary(self) -> tuple[dict[str, Any], str]:
        """Return the last row with its verdict, and the reason of that."""
        last = self._rows[-1]
        if DIVERGED in last:
            reason = f"a state, a Jacobian or the loss was not finite at step {last[DIVERGED]:.0f}"
            return last | {"verdict": "diverged"}, reason
        if "jacobian/decay_rate" not in last:
            return last | {"verdict": "unmeasured"}, ""
        verdict = decay.verdict_of(last, self.length)
        return last | {"verdict": verdict}, sentences.verdict_sentence(last, self.length)


def nested(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return somebody's config, flat (`init.gain`) or nested, over defaults.

    Raises:
        ValueError: a key is both a section and a value.
    """
    merged: dict[str, Any] = {}
    for key, value in (records.flatten(dict(defaults)) | records.flatten(dict(config))).items():
        *sections, name = key.split(".")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or isinstance(place.get(name), dict):
            raise ValueError(
                f"config has {key!r} both as a value and as a section: call one otherwise, as in "
                "{'model.name': 'lstm'}."
            )
        place[name] = value
    return merged


def plain(value: Any) -> Any:
    """Return a config in YAML's types: numbers of arrays as Python's, anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return plain(value.item()) if getattr(value, "shape", None) == () else str(value)
