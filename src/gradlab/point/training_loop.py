"""The course of training: which updates are logged, measured and kept, for points in lock-step."""

from collections.abc import Callable, Sequence
from threading import Event

import jax
import numpy as np

from gradlab.point.recorder import Recorder, Row
from gradlab.point.stopwatch import Stopwatch, timing
from gradlab.schedule import logged_steps, probed_steps
from gradlab.training.batched import BatchedProgram
from gradlab.training.program import State, hyperparameters_of, program_for
from gradlab.training.telemetry import Telemetry, training_row


class TrainingLoop:
    """Training of points of one program, from a step that they share to the last.

    What goes wrong with one point ends that point alone; what goes wrong with what they share is
    raised.
    """

    def __init__(self, recorders: Sequence[Recorder], states: Sequence[State]) -> None:
        """Go on from the points' states, or begin anew without any."""
        config = recorders[0].point.config
        hyperparameters = [hyperparameters_of(recorder.point.config) for recorder in recorders]
        self.recorders = recorders
        self.together = BatchedProgram(program_for(config), hyperparameters)
        self.last, self.limit = config["train"]["steps"], config["train"]["log_every"]
        self.logged = logged_steps(self.last, self.limit)
        self.probed = probed_steps(self.last, config["probe"]["schedule"])
        self.seen: list[Telemetry] = []  # since the last logged step
        if states:
            self.done, self.state = int(states[0].step), self.together.join(states)
        else:
            self.done, self.state = 0, self.together.initialise()
            self._record()

    def run(self, trained: Callable[[int], None], stop: Event) -> None:
        """Train to the last step, or to the logged step at which `stop` is found set."""
        for step in sorted(x for x in self.logged | self.probed if x > self.done):
            if stop.is_set() and self.done in self.logged:
                self._each(lambda recorder, index: recorder.interrupt(self._state(index)))
            if not self._running():
                return
            before = self.done
            self._advance(step)
            trained(step - before)
            self._record()
            if self.done in self.logged:
                self.seen.clear()
                self._each(self._checkpoint_if_due)
        self._each(lambda recorder, index: recorder.finish(self._state(index)))

    def _advance(self, step: int) -> None:
        with timing("train", self._timers()):
            self.state, seen = self.together.advance(self.state, step - self.done, self.limit)
            diverged = np.atleast_1d(np.asarray(self.state.diverged))
        self.done = step
        self.seen.append(seen)

        def end_if_diverged(recorder: Recorder, index: int) -> None:
            if diverged[index]:
                state = self._state(index)
                recorder.add(self._training_row(int(state.step), index))
                recorder.finish(state)

        self._each(end_if_diverged)

    def _record(self) -> None:
        evaluated = {}
        if self.done in self.logged and self._running():
            with timing("evaluate", self._timers()):
                evaluated = self.together.evaluate(self.state)

        def take_down(recorder: Recorder, index: int) -> None:
            trained = self.done in self.logged and self.seen
            row = self._training_row(self.done, index) if trained else {"train/step": self.done}
            found = self.together.member(evaluated, index)
            row |= {name: float(value) for name, value in found.items()}
            if self.done not in self.probed:
                return recorder.add(row)
            with timing("probe", [recorder.timer]):
                measured = self.together.measure(self.state, index)
            return recorder.add(row, measured)

        self._each(take_down)

    def _checkpoint_if_due(self, recorder: Recorder, index: int) -> None:
        if self.done < self.last and recorder.checkpoint_is_due():
            recorder.checkpoint(self._state(index))

    def _training_row(self, step: int, index: int) -> Row:
        seen = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *self.seen)
        return training_row(step, self.together.member(seen, index))

    def _state(self, index: int) -> State:
        return self.together.member(self.state, index)

    def _running(self) -> list[Recorder]:
        return [recorder for recorder in self.recorders if recorder.running]

    def _timers(self) -> list[Stopwatch]:
        return [recorder.timer for recorder in self._running()]

    def _each(self, act: Callable[[Recorder, int], None]) -> None:
        for index, recorder in enumerate(self.recorders):
            if recorder.running:
                with recorder.guarded():
                    act(recorder, index)
