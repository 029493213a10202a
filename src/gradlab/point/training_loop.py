"""The training loop of points that run together: which updates are logged, measured and kept."""

from collections.abc import Callable, Sequence
from threading import Event

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from gradlab.point.recorder import Recorder, Row
from gradlab.point.stopwatch import Stopwatch, timing
from gradlab.schedule import logged_steps, probed_steps
from gradlab.training.batched import BatchedProgram
from gradlab.training.losses import worst_loss
from gradlab.training.program import Program, State, hyperparameters_of
from gradlab.training.telemetry import Telemetry, diverged_row, training_row, worsened_row

STOPPED_AFTER = "stop/sequences"  # that updates have seen when the rule of train.stop was satisfied
Metrics = dict[str, np.ndarray]  # by W&B name, of all points


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
        self.batch_size = config.train.batch_size
        self.worst_loss = worst_loss(program.task.test)
        self.telemetry: list[Telemetry] = []  # since the last logged update
        self.resumed = bool(states)
        self.state = self.batched.stack(states) if states else self.batched.initialise()
        self.update = int(states[0].step) if states else 0

    def run(self, on_updates: Callable[[int], None], stop: Event) -> None:
        """Train to the last update, or to the first logged one after `stop` is set."""
        if self.resumed:
            self._for_each(self._prune_or_checkpoint)  # killed while it was pruned, it is again
        else:
            self._record()  # points that start with weights beyond float32 end here
        for update in sorted(x for x in self.logged | self.probed if x > self.update):
            if stop.is_set() and self.update in self.logged:
                self._for_each(lambda recorder, index: recorder.interrupt(self._state(index)))
            if not self._running():  # all have ended
                return
            before = self.update
            self._advance(update)
            on_updates(update - before)
            self._record()
            if self.update in self.logged:
                self.telemetry.clear()
                self._for_each(self._prune_or_checkpoint)
        self._for_each(lambda recorder, index: recorder.finish(self._state(index)))

    def _advance(self, update: int) -> None:
        count = update - self.update
        with timing("train", self._timers()):
            self.state, telemetry = self.batched.advance(self.state, count, self.max_chunk)
            diverged, stopped = self._flags()
        self.update = update
        self.telemetry.append(telemetry)
        metrics = self._evaluate() if stopped.any() and self._running() else {}

        def end_if_over(recorder: Recorder, index: int) -> None:
            if not (diverged[index] or stopped[index]):
                return
            state = self._state(index)
            row = self._training_row(int(state.step), index)
            if stopped[index]:
                row |= self._own(metrics, index)
                row[STOPPED_AFTER] = int(state.step) * self.batch_size
                self._add_measured(recorder, index, row)
            else:
                recorder.add(row)
            if recorder.running:
                recorder.finish(state)

        self._for_each(end_if_over)

    def _evaluate(self) -> Metrics:
        with timing("evaluate", self._timers()):
            return self.batched.evaluate(self.state)

    def _add_measured(self, recorder: Recorder, index: int, row: Row) -> None:
        """Record a row with what the probes measure; where that is not finite, the point ends.

        Probes look where no loss is evaluated, so they may be the first to meet a divergence.

        Raises:
            FloatingPointError: it is not finite before any update, which is none of training's.
        """
        try:
            with timing("probe", [recorder.timer]):
                measured = self.batched.measure(self.state, index)
        except FloatingPointError as error:
            update = int(self._state(index).step)
            if update == 0:
                raise
            row = self._training_row(update, index) | row if self.telemetry else row
            found = f"after update {update}, {str(error).rstrip('.')}"
            return self._end_diverged(recorder, index, row, found)
        return recorder.add(row, measured)

    def _end_diverged(self, recorder: Recorder, index: int, row: Row, found: str = "") -> None:
        """End a point that has diverged without an update that did; its state says so too."""
        state = self._state(index)
        recorder.add(row | diverged_row(int(state.step), row.get("eval/loss", np.nan)))
        recorder.finish(state._replace(diverged=jnp.array(True)), found)

    def _own(self, metrics: Metrics, index: int) -> Row:
        return {name: float(v) for name, v in self.batched.member(metrics, index).items()}

    def _record(self) -> None:
        """Evaluate and measure where the schedule says so, and record each point's row."""
        diverged, _ = self._flags()
        is_logged = self.update in self.logged and self._running()
        metrics = self._evaluate() if is_logged else {}

        def record(recorder: Recorder, index: int) -> None:
            has_trained = self.update in self.logged and self.telemetry
            row = (
                self._training_row(self.update, index)
                if has_trained
                else {"train/step": self.update}
            )
            row |= self._own(metrics, index)
            loss = row.get("eval/loss", 0.0)
            if diverged[index] or not np.isfinite(loss):  # it has no map to measure
                return self._end_diverged(recorder, index, row)
            row |= self.batched.start_row(self.state, index) if self.update == 0 else {}
            if self.update == self.num_updates:
                before = [*recorder.rows, row][0].get("eval/loss", np.inf)
                row |= worsened_row(self.update, loss, before, self.worst_loss)
                if self.batched.program.stop_rule:
                    row[STOPPED_AFTER] = np.nan  # never satisfied
            if self.update not in self.probed:
                return recorder.add(row)
            return self._add_measured(recorder, index, row)

        self._for_each(record)

    def _prune_or_checkpoint(self, recorder: Recorder, index: int) -> None:
        if self.update == self.num_updates:
            return
        if reason := recorder.reason_to_prune():
            recorder.prune(self._state(index), reason)
        elif recorder.checkpoint_is_due():
            recorder.checkpoint(self._state(index))

    def _training_row(self, update: int, index: int) -> Row:
        joined = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *self.telemetry)
        return training_row(update, self.batched.member(joined, index))

    def _flags(self) -> tuple[Bool[np.ndarray, "points"], Bool[np.ndarray, "points"]]:
        """Return which points have diverged, and which a rule has stopped."""
        # Weights first: on a CPU, XLA never answers for a scalar of a program without memory.
        jax.block_until_ready(self.state.parameters)
        diverged, stopped = (np.asarray(x) for x in (self.state.diverged, self.state.stopped))
        return np.atleast_1d(diverged), np.atleast_1d(stopped)

    def _state(self, index: int) -> State:
        return self.batched.state_of(self.state, index)

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
