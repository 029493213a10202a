"""Points that train together on an accelerator have their maps measured together."""

from typing import Any

import jax
import numpy as np
import pytest
from conftest import Compose

from gradlab.training import batched
from gradlab.training.batched import BatchedProgram
from gradlab.training.program import Program, hyperparameters_of


def test_a_point_measures_the_same_beside_others_as_alone(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # a CPU measures one by one
    calls = []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["norm"])
        return together(*args, **options)

    together = batched.log_norms_together
    monkeypatch.setattr(batched, "log_norms_together", counted)
    words = (
        "model.hidden_size=4",
        "task.length=4",
        "probe=[typical,rms]",
        "probe.jacobian.wrt=c",
        "model=lstm",
    )
    configs = [composed(*words, f"init.gain={gain}", "seed=3") for gain in (0.5, 2.0)]
    program, hyperparameters = Program(configs[0]), list(map(hyperparameters_of, configs))
    points = BatchedProgram(program, hyperparameters)
    state = points.initialise()
    for index, own in enumerate(hyperparameters):
        beside = points.measure(state, index)
        alone = program.measure(own, points.state_of(state, index))
        assert beside.metrics == pytest.approx(alone.metrics, rel=1e-4, nan_ok=True)
        for name, array in alone.arrays.items():
            np.testing.assert_allclose(beside.arrays[name], array, atol=1e-5)
    assert calls == ["rms", "rms"]  # a norm each of ∂h/∂c and of ∂h/∂h

    weights = jax.tree.map(lambda x: x.at[1].set(np.inf), state.parameters)
    broken = state._replace(parameters=weights)
    points.measure(broken, 0)
    with pytest.raises(
        FloatingPointError, match=r"the weights .* hold a number that is not finite"
    ):
        points.measure(broken, 1)
