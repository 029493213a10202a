"""Character prediction: windows of a text, their classes, and what is evaluated."""

import collections
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import Compose
from hand_built import draw_batch

from gradlab.components import ConfigError
from gradlab.identity import identity
from gradlab.tasks.text import python_manual, text
from gradlab.training.program import Program, hyperparameters_of

VERSE = "the quick brown fox jumps over the lazy dog; naïve 狐 \n" * 40


@pytest.fixture
def verse(tmp_path: Path) -> str:
    path = tmp_path / "verse.txt"
    path.write_text(VERSE, encoding="utf-8")
    return str(path)


def alphabet(symbols: int) -> list[str]:
    """The characters by class; those of one count as they are ordered in Unicode."""
    counts = collections.Counter(VERSE)
    return sorted(counts, key=lambda character: (-counts[character], character))[:symbols]


def spelt(classes: np.ndarray) -> str:
    known = alphabet(256)
    return "".join(known[i] for i in classes)


def test_a_window_is_read_and_its_next_characters_are_asked_for(verse: str) -> None:
    task = text(12, verse, test_size=5)
    assert task.features == task.outputs == len(set(VERSE))
    split = round(0.9 * len(VERSE))
    for batch, source in ((draw_batch(task, 50), VERSE[:split]), (task.test, VERSE[split:])):
        for inputs, targets in zip(*map(np.asarray, batch[:2]), strict=True):
            window = spelt(np.argmax(inputs, axis=1)) + spelt(targets[-1:])
            assert window in source
            assert spelt(targets) == window[1:]
        assert (np.asarray(batch.inputs).sum(axis=2) == 1).all()
        assert (np.asarray(batch.weights) == 1).all()


def test_held_out_windows_lie_apart(tmp_path: Path) -> None:
    characters = "".join(map(chr, range(1000, 1250)))
    (tmp_path / "all.txt").write_text(characters * 4)
    task = text(10, str(tmp_path / "all.txt"), symbols=256, test_size=1000)
    assert len(task.test.targets) == 9  # in 100 held-out characters, of which 99 follow one
    shown = np.asarray(task.test.targets).ravel()
    assert len(set(shown.tolist())) == shown.size


def test_the_rarest_characters_share_a_class(verse: str) -> None:
    task = text(len(VERSE) // 20, verse, symbols=6, test_size=1)
    assert task.outputs == 6
    split, known = round(0.9 * len(VERSE)), alphabet(5)
    start = VERSE[split:]
    expected = [known.index(c) if c in known else 5 for c in start[1 : len(VERSE) // 20 + 1]]
    assert task.test.targets[0].tolist() == expected


def test_the_baseline_is_that_of_character_frequencies(verse: str) -> None:
    task = text(20, verse, test_size=4)
    counts = collections.Counter(VERSE[: round(0.9 * len(VERSE))])
    total = sum(counts.values()) + len(set(VERSE))
    asked = spelt(np.asarray(task.test.targets).ravel())
    expected = np.mean([math.log(total / (counts[c] + 1)) for c in asked])
    assert task.baseline == pytest.approx(expected, rel=1e-6)


def test_pythons_manual_is_english() -> None:
    manual = python_manual()
    assert 300_000 < len(manual) < 1_000_000
    assert "Assert statements are a convenient way" in manual
    assert 0.1 < manual.count(" ") / len(manual) < 0.4
    task = text(30)
    assert task.outputs == 96
    assert 2.5 < task.baseline < 4


def test_a_network_learns_to_spell(composed: Compose) -> None:
    config = composed(
        "task=text", "task.length=20", "task.test_size=50", "optim.learning_rate=0.01"
    )
    program, hyperparameters = Program(config), hyperparameters_of(config)
    state, _ = program.advance(hyperparameters, program.initialise(hyperparameters), 300)
    row = program.evaluate(state)
    loss = float(row["eval/loss"])
    assert loss < 0.95 * program.task.baseline
    assert float(row["eval/bits_per_character"]) == pytest.approx(loss / math.log(2), rel=1e-5)
    assert float(row["eval/perplexity"]) == pytest.approx(math.exp(loss), rel=1e-5)


def test_other_lengths_are_windows_of_the_same_text(composed: Compose, verse: str) -> None:
    words = ("task=text", f"task.path={verse}", "task.length=10", "task.test_lengths=[40]")
    program = Program(composed(*words))
    state = jax.eval_shape(program.initialise, hyperparameters_of(program.config))
    row = jax.eval_shape(program.evaluate, state)
    assert {"eval/length_40/bits_per_character", "eval/perplexity"} <= set(row)
    assert program.judged["length_40/"].features == program.task.features


def test_only_a_text_has_bits_per_character(composed: Compose) -> None:
    program = Program(composed("task=echo"))
    state = jax.eval_shape(program.initialise, hyperparameters_of(program.config))
    assert "eval/bits_per_character" not in jax.eval_shape(program.evaluate, state)


def test_a_task_is_known_by_the_texts_contents(
    composed: Compose, verse: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.txt"
    moved.write_text(VERSE, encoding="utf-8")
    here, there = (composed("task=text", f"task.path={path}") for path in (verse, moved))
    assert identity(here) == identity(there) != identity(composed("task=text"))
    Path(verse).write_text(VERSE + "x", encoding="utf-8")
    with pytest.raises(ConfigError, match="has other contents now"):
        Program(here)


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        (b"ab\xff\xfe" * 99, (), "path=it.txt: it must be a text in UTF-8; byte 2 is none of it"),
        (b"", (), "path=it.txt: it must not be empty"),
        (b"a" * 2000, (), "task.path=it.txt must have two different characters at least"),
        (b"ab" * 99, (), r"task.length must be below 20, the characters of task.path=it.txt that"),
        (b"ab" * 999, ("task.symbols=1",), "task.symbols must be greater than or equal to 2"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    composed: Compose, content: bytes, words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "it.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        Program(composed("task=text", f"task.path={tmp_path / 'it.txt'}", *words))


def test_a_missing_file_is_named(composed: Compose) -> None:
    with pytest.raises(
        ConfigError, match=r"must be a text in UTF-8, and there is no file .*none.txt"
    ):
        composed("task=text", "task.path=none.txt")
