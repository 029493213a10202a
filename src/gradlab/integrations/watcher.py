"""Measures a network when it is due, records and logs that, and never ends its training."""

import contextlib
import operator
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from gradlab.integrations.cells import Driven
from gradlab.integrations.folder import DIVERGED, Row, WatchFolder, nested
from gradlab.integrations.gradient_norms import GradientNorms
from gradlab.integrations.probe_choice import Sections, of_whole_carry, recorded
from gradlab.integrations.unfinished import finish_at_exit, open_watchers
from gradlab.jacobian.adjoints import Loss
from gradlab.point.failures import reason_of
from gradlab.probes import Measurement, ProbeInput, run_probes
from gradlab.records import leases
from gradlab.schedule import next_probed
from gradlab.tracking.users_run import UsersRun

MODEL_NAMES = {  # as in a run of gradlab's; other cells go by their class
    **dict.fromkeys(("SimpleCell", "Elman", "ConcatenatedElman"), "rnn"),
    **dict.fromkeys(("LSTMCell", "OptimizedLSTMCell", "LSTM", "ProjectedLSTM"), "lstm"),
    **dict.fromkeys(("GRUCell", "GRU"), "gru"),
    "StepCell": "step",
}


class Watcher:
    """Measures a network when it is due; made by `gradlab.watch`.

    As a context manager it calls `finish` at the end of the block, and records a block that raises
    as failed; one that is left open is finished when Python exits.

    Example:
        >>> watcher = gradlab.watch(x, folder="runs/once")
        >>> measured = watcher(0, cell)
        >>> watcher.finish()
        >>> gradlab.load_gradients("runs/once")["jacobian_log_norm"].shape  # step, sample, t, k
        (1, 4, 21, 21)
    """

    def __init__(
        self,
        drive: Callable[[Any], Mapping[str, Driven]],
        *,
        sections: Sections,
        every: str | int | list[int],
        run: UsersRun,
        folder: Path | None,
        config: dict[str, Any],
        overwrite: bool,
        loss: Loss | None,
        stride: int,
        gradients: GradientNorms,
    ) -> None:
        """Prepare; the arguments are those of `gradlab.watch`, checked.

        Args:
            drive: returns the cells of a model by name, with their sequences.
            sections: the probes, as a config's section has them.
            every, run, folder, config, overwrite, loss, stride: as there.
            gradients: sums up the norms of gradients.
        """
        self._drive, self._sections, self._every, self._run = drive, sections, every, run
        self._folder, self._config, self._overwrite = folder, config, overwrite
        self._loss, self._stride, self._gradients = loss, stride, gradients
        self._due = -np.inf  # the first step that is measured next
        self._last: tuple[Any, Any, Mapping[str, Any]] | None = None  # seen, and not measured
        self._step = 0  # measured last
        self._folders: dict[str, WatchFolder] | None = None  # None before the first measurement
        self._count, self._seconds, self._first, self._began = 0, 0.0, 0.0, 0.0
        self._warned: set[str] = set()
        self._finished = False

    def __call__(
        self,
        step: int,
        cell: Any,
        *,
        grads: PyTree = None,
        params: PyTree = None,
        **metrics: Any,
    ) -> Measurement | None:
        """Measure the network if it is due.

        Args:
            step: the number of updates so far, or any count that grows. Steps may begin anywhere
                and skip; one that is due is made up for at the next call. A step that repeats, or
                lies before one that was measured, is not measured. An array of JAX waits for its
                device: give a Python int.
            cell: a Flax NNX cell, or a model that holds one or several; a torch module; or, with
                `initial_carry`, a function step(carry, x) -> (carry, y) of the present weights.
            grads: the gradient of this update, before clipping: a pytree, or torch tensors. Given
                at every step, rows say the mean norm since the row before, after your `clip` too,
                and the share of updates that it changed.
            params: the weights, for a `clip` that reads them.
            metrics: numbers of yours for the row in the folder, read when it is due: `loss=` is
                "train/loss"; **{"eval/accuracy": x} keeps its name.

        Returns:
            The measurement, its names with the cell's before them ("encoder.lstm/jacobian/…") if
            there are several; None if it is not due. Of a network whose states are not finite it
            has no more than "diverged/update", the step.

        Raises:
            ValueError: at the first call: the step, grads, inputs, probes or folder do not fit.
                Later errors are warned of once each, and training goes on.
            TypeError: at the first call: there is no cell to measure.
        """
        if grads is not None:
            self.add_gradients(grads, params)
        if self._folders is None:
            _whole(step)
        if step < self._due:
            self._last = (step, cell, metrics)
            return None
        return self._measure(_whole(step), cell, metrics)

    def add_gradients(self, grads: PyTree, params: PyTree = None) -> None:
        """Take an update's gradient in, where it is clipped in place before the watcher's call.

        Args:
            grads, params: as in a call.

        Raises:
            ValueError: the first gradients are none, or do not fit the clip. Later errors are
                warned of once, and training goes on.
        """
        try:
            self._gradients.add(grads, params)
        except Exception as error:
            if not self._gradients.has_begun:
                raise
            self._warn(f"could not take a gradient in: {reason_of(error)}")

    def finish(self) -> Measurement | None:
        """Measure the last step that was seen, close the records, and print the cost.

        The model is measured as it is then, and later calls measure nothing.

        Returns:
            That measurement; None if the last step was measured already.
        """
        return self._finish("done", measure=True)

    def __enter__(self) -> Self:
        """Return the watcher."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish, as failed if the block has raised."""
        if error is None:
            self._finish("done", measure=bool(self._folders) or self._run.is_open)
        elif isinstance(error, KeyboardInterrupt):
            self._finish("interrupted", measure=False, reason="stopped by Ctrl-C")
        else:
            self._finish("failed", measure=False, reason=reason_of(error))

    def _finish(self, state: str, *, measure: bool, reason: str = "") -> Measurement | None:
        if self._finished:
            return None
        self._finished = True
        open_watchers.discard(self)
        if self._folders is None:  # never called, or refused
            return None
        measured = None
        if measure and self._last and self._last[0] > self._step:
            measured = self._measure(_whole(self._last[0]), *self._last[1:])
        self._last, self._due = None, np.inf
        self._run.finish()
        for folder in self._folders.values():
            try:
                folder.finish(state, reason)
            except OSError as error:
                self._warn(f"could not close its records: {error}")
        self._print_cost()
        return measured

    def _print_cost(self) -> None:
        passed = time.perf_counter() - self._began
        where = f"; records in {self._folder}" if self._folder else ""
        count = "1 measurement" if self._count == 1 else f"{self._count} measurements"
        print(
            f"gradlab: {count} took {self._seconds:.1f} s, {self._seconds / passed:.1%} of the "
            f"{passed:.1f} s since the first, which compiles and took {self._first:.1f} s{where}"
        )

    def _measure(self, step: int, model: Any, metrics: Mapping[str, Any]) -> Measurement | None:
        """Measure all cells, and log and record the row of this step."""
        is_first = self._folders is None
        begun = time.perf_counter()
        try:
            driven = self._drive(model)
            traced = time.perf_counter()
            weights = jax.tree.leaves([nnx.state(x.cell) for x in driven.values()])
            if any(isinstance(array, jax.core.Tracer) for array in weights):
                raise ValueError(
                    "a watcher measures numbers, and JAX is tracing here: call it outside of jit, "
                    "grad, vmap and scan, once per update."
                )
            # Updates that are still running are no cost of the measurement.
            jax.block_until_ready(weights)
            waited = time.perf_counter() - traced
            row: Row = {"train/step": step, **self._gradients.row()}
            theirs = _numbers(metrics)
            measured = {name: self._probe(step, cell) for name, cell in driven.items()}
            if is_first:
                self._open(step, driven)
                self._began = begun
            self._count += 1
            joined = _joined(measured)
            self._run.log(row | joined.metrics, joined.arrays)
            for name, folder in (self._folders or {}).items():
                folder.add(theirs | row, measured[name])
        except Exception as error:
            if is_first:
                raise
            self._warn(f"could not measure or record step {step}: {reason_of(error)}")
            return None
        finally:
            self._last, self._step = None, step
            self._due = -np.inf if self._folders is None else next_probed(step, self._every)
        seconds = time.perf_counter() - begun - waited
        self._seconds += seconds
        self._first = seconds if is_first else self._first
        return joined

    def _probe(self, step: int, driven: Driven) -> Measurement:
        """Return what the probes measure of a cell; `DIVERGED` if its states are not finite."""
        probed = ProbeInput(
            cell=driven.cell,
            inputs=driven.inputs,
            lengths=driven.lengths,
            loss=self._loss or _no_loss,
            targets=driven.targets,
            stride=self._stride,
            grad_norm=lambda: 0.0,  # read for a finite threshold only
            threshold=np.inf,
        )
        try:
            return run_probes(self._sections_of(driven), probed)
        except FloatingPointError as error:
            self._warn(f"found the network diverged at step {step}: {error}")
            return Measurement({DIVERGED: step}, {})

    def _sections_of(self, driven: Driven) -> Sections:
        return self._sections if driven.has_h else of_whole_carry(self._sections)

    def _open(self, step: int, driven: Mapping[str, Driven]) -> None:
        """Open the records of each cell, at the first measurement."""
        if self._folder:
            self._close_others(self._folder)
        folders = {}
        with contextlib.ExitStack() as closing:  # all that is open already, if one is refused
            self._run.open()
            closing.callback(self._run.finish)
            for name, cell in driven.items():
                if self._folder is None:
                    break
                part = name if len(driven) > 1 else ""
                config = nested(self._config, self._defaults(part, cell))
                folder = self._folder / part
                folders[name] = WatchFolder(folder, config, cell.inputs.shape[1], cells=len(driven))
                folders[name].open(step, self._overwrite)
                closing.callback(leases.release, folder)
            closing.pop_all()
        self._folders = folders
        finish_at_exit(self)

    def _close_others(self, folder: Path) -> None:
        """Close a watcher that somebody has left open and that would write to the folder too."""
        for other in list(open_watchers):
            if other._folder and other._folder.absolute() == folder.absolute():
                reason = "another watcher writes to its folder now"
                other._finish("interrupted", measure=False, reason=reason)
                self._warn(
                    f"closes the watcher that was open on {str(folder)!r}: one at a time writes to "
                    "a folder"
                )

    def _defaults(self, part: str, driven: Driven) -> dict[str, Any]:
        """Return the config that figures need, where a user's does not say otherwise."""
        layers = getattr(driven.cell, "layers", None)  # of a stack
        kind = type(layers[0] if layers else driven.cell).__name__
        samples, length = driven.inputs.shape[:2]
        settings = {"samples": samples, "stride": self._stride, "schedule": self._every}
        threshold = self._gradients.threshold  # inf where clip is none, or a rule of optax
        return {
            "model": {"name": MODEL_NAMES.get(kind, kind)} | ({"part": part} if part else {}),
            "task": {"length": length},
            "clip": {"threshold": threshold} if np.isfinite(threshold) else {},
            "probe": settings | recorded(self._sections_of(driven)),
        }

    def _warn(self, message: str) -> None:
        """Warn once of each kind of trouble, none of which ends the training."""
        kind = message.partition(" step ")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            text = f"gradlab.watch {message.rstrip('.')}. Training goes on."
            warnings.warn(text, RuntimeWarning, stacklevel=4)


def _joined(measured: Mapping[str, Measurement]) -> Measurement:
    """Return the measurements of all cells as one, with the names of several before theirs."""
    if len(measured) == 1:
        return next(iter(measured.values()))
    return Measurement(
        {f"{cell}/{name}": x for cell, m in measured.items() for name, x in m.metrics.items()},
        {f"{cell}/{name}": x for cell, m in measured.items() for name, x in m.arrays.items()},
    )


def _whole(step: Any) -> int:
    """Return a number of updates as Python's.

    Raises:
        ValueError: it is none.
    """
    try:
        return operator.index(step)
    except TypeError as error:
        raise ValueError(
            "the first argument of a watcher is the number of updates so far, a whole number, and "
            f"the second the model: watcher(step, model); got {type(step).__name__} {step!r:.40}."
        ) from error


def _numbers(metrics: Mapping[str, Any]) -> Row:
    """Return somebody's metrics as numbers, those without a section in "train/".

    Raises:
        ValueError: one is no number.
    """
    row = {}
    for name, value in metrics.items():
        value = value.detach() if hasattr(value, "detach") else value  # else torch warns of it
        try:
            row[name if "/" in name else f"train/{name}"] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metrics must be numbers; {name} is {value!r:.80}.") from error
    return row


def _no_loss(carry: PyTree, target: PyTree) -> Any:
    raise ValueError("a probe of yours reads the loss: give gradlab.watch loss= and targets=.")
