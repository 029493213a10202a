"""What a student sees: right answers, questions, and functions that return no answer at all."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from student_answers import RIGHT, bptt

import gradlab
from gradlab.exercises import EXERCISES, outcome, phrases

Array = np.ndarray


class OfAnotherLibrary:
    """A tensor that is handed to NumPy on request only, as PyTorch's with a gradient."""

    def __array__(self, *_: object, **__: object) -> Array:
        raise RuntimeError("use .detach()")


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_passes(name: str, language: str) -> None:
    result = gradlab.check(name, RIGHT[name], language=language)
    assert result, result
    assert repr(result).startswith(f"{name}: " + {"en": "right", "es": "correcto"}[language])


def test_answers_of_jax_pass_in_float32_and_float64() -> None:
    @jax.jit
    def terms(h: Array, W_hh: Array, g: Array) -> Any:
        def last(W: Any) -> Any:  # a matrix for each step
            state = jnp.array(h[0])
            for k in range(1, len(h)):
                drive = jnp.arctanh(h[k]) - W_hh @ h[k - 1]
                state = jnp.tanh(W[k - 1] @ state + drive)
            return g @ state

        return jax.grad(last)(jnp.stack([jnp.array(W_hh)] * (len(h) - 1)))

    assert gradlab.check("bptt", terms)
    with jax.enable_x64(True):
        assert gradlab.check("bptt", terms)


def test_an_error_above_the_tolerance_is_seen_and_rounding_is_not() -> None:
    right = RIGHT["step_jacobian"]
    assert gradlab.check("step_jacobian", lambda h, W: right(h, W) * (1 + 1e-8))
    assert not gradlab.check("step_jacobian", lambda h, W: right(h, W) * (1 + 1e-5))


def test_one_small_term_that_is_wrong_is_not_hidden_by_large_ones() -> None:
    def answer(h: Array, W_hh: Array, g: Array) -> list[Array]:
        terms = bptt(h, W_hh * 1e-4, g)  # term k is of size 1e-4 to the power T − k
        return [terms[0] * 2, *terms[1:]]

    assert "Different: k" in gradlab.check("bptt", answer).message


def test_questions_name_the_arguments_and_the_result() -> None:
    listed = gradlab.check()
    assert not listed
    for name, exercise in EXERCISES.items():
        assert exercise.call in repr(listed)
        asked = gradlab.check(name)
        assert not asked
        assert exercise.returns["en"] in asked.message
        assert EXERCISES[name].question["es"] in gradlab.check(name, language="es").message


def test_what_is_not_written_yet() -> None:
    def unwritten(h: Array, W_hh: Array, g: Array) -> Array:
        raise NotImplementedError

    def skeleton(h: Array, W_hh: Array, g: Array) -> Any:
        return np.array([..., ...])

    def empty(h: Array, W_hh: Array, g: Array) -> None: ...

    assert repr(gradlab.check("bptt", unwritten)).startswith("bptt: not yet. The function is not")
    assert gradlab.check("bptt", skeleton) == gradlab.check("bptt", unwritten)
    assert "returned None" in repr(gradlab.check("bptt", empty))
    assert "todavía no" in repr(gradlab.check("bptt", empty, language="es"))


def test_an_error_is_one_sentence_with_its_line() -> None:
    def answer(h: Array, W_hh: Array, g: Array) -> Array:
        return np.linalg.inv(h)  # no square matrix

    message = gradlab.check("bptt", answer).message
    line = answer.__code__.co_firstlineno + 1
    assert f"LinAlgError in line {line} (return np.linalg.inv(h)" in message
    assert "\n" not in message


def test_an_error_on_one_case_names_the_case() -> None:
    def answer(h: Array, W_hh: Array, g: Array) -> list[Array]:
        h[1], h[2]  # fails with one step
        return bptt(h, W_hh, g)

    message = gradlab.check("bptt", answer).message
    assert "With T = 1, n = 3, it raised IndexError in line" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda h, W_hh: W_hh, "It must take 3 arguments, in this order: bptt(h, W_hh, g)"),
        (lambda h, W_hh, g: "terms", "a value of type str"),
        (lambda h, W_hh, g: [[1.0], [1.0, 2.0]], "a value of type list"),
        (lambda h, W_hh, g: np.array(bptt(h, W_hh, g)) * 1j, "complex128, not of float64"),
        (lambda h, g, W_hh: bptt(h, W_hh, g), "in this order: bptt(h, W_hh, g)"),
        (lambda h, W_hh, g: OfAnotherLibrary(), "that NumPy cannot read: use .detach()"),
        (lambda h, W_hh, g: bptt(h, W_hh, g)[0].sum(), "bptt returned one number"),
        (lambda h, W_hh, g: np.multiply(h, 2, out=h), "changed its argument h"),
    ],
)
def test_what_is_no_answer_gets_a_sentence(answer: Any, words: str) -> None:
    result = gradlab.check("bptt", answer)
    assert not result
    assert words in result.message


def test_errors_of_the_call_are_raised() -> None:
    with pytest.raises(ValueError, match="bptt, truncated, clip"):
        gradlab.check("bppt", bptt)
    with pytest.raises(TypeError, match="name of the exercise first"):
        gradlab.check(bptt, "bptt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="en, es"):
        gradlab.check("bptt", bptt, language="fr")
    with pytest.raises(TypeError, match=r"check\('bptt', bptt\)"):
        gradlab.check("bptt", np.zeros(3))  # type: ignore[arg-type]


def test_an_interrupted_answer_says_on_which_case() -> None:
    def answer(h: Array, W_hh: Array, g: Array) -> Any:
        if len(h) == 2:
            raise KeyboardInterrupt
        return bptt(h, W_hh, g)

    with pytest.raises(KeyboardInterrupt, match="With T = 1, n = 3"):
        gradlab.check("bptt", answer)


def test_lines_are_as_wide_as_a_page() -> None:
    for name in EXERCISES:
        for language in ("en", "es"):
            lines = repr(gradlab.check(name, language=language)).splitlines()
            assert max(map(len, lines)) <= outcome.WIDTH


def test_an_equation_stays_on_its_line() -> None:
    message = "k = 1, " * 40
    lines = repr(outcome.Outcome(message)).splitlines()
    assert len(lines) > 2
    assert all(line.strip().startswith("k = 1,") and line.endswith("1,") for line in lines)


def test_both_languages_say_the_same_things() -> None:
    shared = [words for words in vars(phrases).values() if isinstance(words, dict)]
    shared = [words for words in shared if "en" in words]
    own = [
        words
        for exercise in EXERCISES.values()
        for words in (
            *(exercise.idea, exercise.question, exercise.takes, exercise.returns),
            *(mistake.words for mistake in exercise.mistakes),
        )
    ]
    assert len(shared) > 20
    for words in shared + own:
        assert set(words) == {"en", "es"}
        fields = [sorted(set(re.findall(r"{(\w+)}", words[x]))) for x in words]
        assert fields[0] == fields[1]
