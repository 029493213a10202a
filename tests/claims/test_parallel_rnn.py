"""Newton steps of a trajectory against a dense solve of all states at once; λ₁ and its bound."""

import numpy as np
import pytest

from gradlab.studies import parallel_rnn


def dense_newton_steps(problem: parallel_rnn.Problem, gain: float, tolerance: float) -> int:
    """Count the steps of Newton's method on the vector of all states, with its whole Jacobian."""
    length, n = problem.inputs.shape
    coupling, states = gain * problem.coupling, problem.guess.copy()
    for taken in range(length + 1):
        before = np.concatenate([problem.start[None], states[:-1]])
        residuals = states - np.tanh(before) @ coupling.T - problem.inputs
        if 0.5 * np.sum(residuals**2) / length < tolerance:
            return taken
        jacobian = np.eye(length * n)
        for t in range(1, length):
            block = coupling * (1 - np.tanh(before[t]) ** 2)
            jacobian[t * n : (t + 1) * n, (t - 1) * n : t * n] = -block
        states -= np.linalg.solve(jacobian, residuals.ravel()).reshape(length, n)
    raise AssertionError("Newton's method needs at most T steps")


def test_counts_are_those_of_a_dense_solve() -> None:
    problem, gains = parallel_rnn.draw_problem(0, 6, 24), np.array([0.5, 1.5, 4.0])
    lengths = np.array([8, 24])
    counts = parallel_rnn.newton_steps(problem, gains, lengths, 1e-10)
    for row, gain in zip(counts, gains, strict=True):
        for count, length in zip(row, lengths, strict=True):
            shorter = problem._replace(inputs=problem.inputs[:length], guess=problem.guess[:length])
            assert count == dense_newton_steps(shorter, gain, 1e-10)
    assert (np.diff(counts[:, 1]) > 0).all()  # the larger the gain, the more steps
    assert (counts <= lengths).all()


def test_exponents_are_the_growth_of_products_of_jacobians() -> None:
    problem, gains = parallel_rnn.draw_problem(1, 5, 30), np.array([0.7, 2.0])
    rates = parallel_rnn.exponents(problem, gains, np.array([10, 30]), seed=3)
    directions = np.random.default_rng(3).uniform(-1, 1, (3, 5))
    for gain, measured in zip(gains, rates, strict=True):
        state, product = problem.start, np.eye(5)
        for t, u in enumerate(problem.inputs, start=1):
            product = gain * problem.coupling * (1 - np.tanh(state) ** 2) @ product
            state = gain * problem.coupling @ np.tanh(state) + u
            if t in (10, 30):
                growth = [np.linalg.norm(product @ v) / np.linalg.norm(v) for v in directions]
                expected = np.mean(np.log(growth)) / t
                assert measured[t // 30] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rate", [-0.3, 0.2])
def test_the_bound_is_the_geometric_series(rate: float) -> None:
    expected = -2 * np.log((np.exp(rate) - 1) / (np.exp(rate * 50) - 1))
    assert parallel_rnn.log_condition(rate, 50) == pytest.approx(expected, rel=1e-12)


def test_the_table_of_a_few_small_networks() -> None:
    table = parallel_rnn.measure(8, 0.4, 3.0, 6, 5, 40, 3, 40, 1e-10, [0, 1], [0.5], 10, [0])
    steps, seeds, instrument = (table[table["part"] == p] for p in ("steps", "seed", "instrument"))
    assert len(steps) == 2 * 6 * 4  # lengths 4, 5, 14 and 40
    assert len(seeds) == 2
    assert (seeds["rank_correlation"] > 0.5).all()
    # Another guess and a stricter tolerance: a few more steps.
    assert 0 <= instrument["newton"].item() - instrument["steps"].item() <= 3
    np.testing.assert_allclose(instrument["from_exponent"], instrument["expected"], rtol=1e-5)
