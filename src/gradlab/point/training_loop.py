"""The training loop of points that run together: which updates are logged, measured and kept."""

from collections.abc import Callable, Sequence
from threading import Event

import jax
import numpy as np
from jaxtyping import Bool

from gradlab.point.recorder import Recorder, Row
from gradlab.point.stopwatch import Stopwatch, timing
from gradlab.schedule import logged_steps, probed_steps
from gradlab.training.batched import BatchedProgram
from gradlab.training.losses import worst_loss
from gradlab.training.program import Program, State, hyperparameters_of
from gradlab.training.telemetry import Telemetry, diverged_row, training_row, worsened_row


class TrainingLoop:
    """Trains points of one program together, from a common update to the last.

    An error in one point ends only that point; an error in shared work is raised.
    """

    def __init__(
        self, program: Program, recorders: Sequence[Recorder], states: Sequence[State]
    ) -> None:
        """Go on from the points' states, or start anew if there are none."""
        config = program.config
        hyperparameters = [hyperparameters_of(recorder.point.config) for recorder in recorders]
        self.recorders = recorders
        self.batched = BatchedProgram(program, hyperparameters)
        self.num_updates, self.max_chunk = config.train.steps, config.train.log_every
        self.logged = logged_steps(self.num_updates, self.max_chunk)
        self.probed = probed_steps(self.num_updates, config.probe["schedule"])
        self.worst_loss = worst_loss(program.task.test)
        self.telemetry: list[Telemetry] = []  # since the last logged update
        self.resumed = bool(states)
        self.state = self.batched.stack(states) if states else self.batched.initialise()
        self.update = int(states[0].step) if states else 0

    def run(self, on_updates: Callable[[int], None], stop: Event) -> None:
        """Train to the last update, or to the first logged one after `stop` is set."""
        if not self.resumed:
            self._record()  # points that start with weights beyond float32 end here
        for update in sorted(x for x in self.logged | self.probed if x > self.update):
            if stop.is_set() and self.update in self.logged:
                self._for_each(lambda recorder, index: recorder.interrupt(self._state(index)))
            if not self._running():  # all were interrupted, have diverged or failed
                return
            before = self.update
            self._advance(update)
            on_updates(update - before)
            self._record()
            if self.update in self.logged:
                self.telemetry.clear()
                self._for_each(self._checkpoint_if_due)
        self._for_each(lambda recorder, index: recorder.finish(self._state(index)))

    def _advance(self, update: int) -> None:
        count = update - self.update
        with timing("train", self._timers()):
            self.state, telemetry = self.batched.advance(self.state, count, self.max_chunk)
            diverged = self._diverged()
        self.update = update
        self.telemetry.append(telemetry)

        def end_if_diverged(recorder: Recorder, index: int) -> None:
            if diverged[index]:
                state = self._state(index)
                recorder.add(self._training_row(int(state.step), index))
                recorder.finish(state)

        self._for_each(end_if_diverged)

    def _record(self) -> None:
        """Evaluate and measure where the schedule says so, and record each point's row."""
        metrics: dict[str, np.ndarray] = {}
        diverged = self._diverged()
        if self.update in self.logged and self._running():
            with timing("evaluate", self._timers()):
                metrics = self.batched.evaluate(self.state)

        def record(recorder: Recorder, index: int) -> None:
            has_trained = self.update in self.logged and self.telemetry
            row = (
                self._training_row(self.update, index)
                if has_trained
                else {"train/step": self.update}
            )
            row |= {k: float(v) for k, v in self.batched.member(metrics, index).items()}
            loss = row.get("eval/loss", 0.0)
            if diverged[index] or not np.isfinite(loss):  # it has no map to measure
                recorder.add(row | diverged_row(self.update, loss))
                return recorder.finish(self._state(index))
            if self.update == self.num_updates:
                before = [*recorder.rows, row][0].get("eval/loss", np.inf)
                row |= worsened_row(self.update, loss, before, self.worst_loss)
            if self.update not in self.probed:
                return recorder.add(row)
            with timing("probe", [recorder.timer]):
                measurement = self.batched.measure(self.state, index)
            return recorder.add(row, measurement)

        self._for_each(record)

    def _checkpoint_if_due(self, recorder: Recorder, index: int) -> None:
        if self.update < self.num_updates and recorder.checkpoint_is_due():
            recorder.checkpoint(self._state(index))

    def _training_row(self, update: int, index: int) -> Row:
        joined = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *self.telemetry)
        return training_row(update, self.batched.member(joined, index))

    def _diverged(self) -> Bool[np.ndarray, "points"]:
        # Weights first: on a CPU, XLA never answers for a scalar of a program without memory.
        jax.block_until_ready(self.state.parameters)
        return np.atleast_1d(np.asarray(self.state.diverged))

    def _state(self, index: int) -> State:
        return self.batched.member(self.state, index)

    def _running(self) -> list[Recorder]:
        return [recorder for recorder in self.recorders if recorder.running]

    def _timers(self) -> list[Stopwatch]:
        return [recorder.timer for recorder in self._running()]

    def _for_each(self, act: Callable[[Recorder, int], None]) -> None:
        """Apply a function to each running point; an exception ends that point as failed."""
        for index, recorder in enumerate(self.recorders):
            if recorder.running:
                with recorder.guarded():
                    act(recorder, index)
