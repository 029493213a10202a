"""YAML by libyaml is what OmegaConf reads and writes."""

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradlab.records import yaml_text

WORDS = ("1e-3", "1e3", "yes", "~", "2020-01-01", "1:30", ".inf", "- a", "a: b", "# c", "", " x")
TEXT = st.text(st.characters(exclude_categories=("C", "Z")), max_size=90) | st.sampled_from(WORDS)
SCALAR = TEXT | st.integers() | st.floats() | st.booleans() | st.none()
NAME = st.from_regex(r"[a-z_]\w{0,8}", fullmatch=True)
NODE = st.recursive(
    SCALAR, lambda node: st.lists(node, max_size=4) | st.dictionaries(NAME, node, max_size=4)
)
CONFIG = st.dictionaries(NAME, NODE, max_size=5)


@settings(deadline=None)
@example({"_": "${"})
@example({"_": "${", "*": "&a !b << *c"})
@example({"_": "${" + 70_000 * "a"})
@given(CONFIG)
def test_a_config_is_written_and_read_back(config: dict[str, Any]) -> None:
    assert repr(yaml_text.load(yaml_text.dump(config))) == repr(config)  # a NaN is not itself


def test_a_tuple_is_written_as_a_list() -> None:
    assert yaml_text.load(yaml_text.dump({"widths": (8, (4,))})) == {"widths": [8, [4]]}


@settings(deadline=None)
@given(CONFIG)
def test_text_is_omegaconfs(config: dict[str, Any]) -> None:
    try:
        theirs = OmegaConf.create(config)  # refuses what looks like an interpolation and is none
    except OmegaConfBaseException:
        return
    text = OmegaConf.to_yaml(theirs)
    assert repr(yaml_text.load(text)) == repr(OmegaConf.to_container(OmegaConf.create(text)))
    if text.isascii():
        assert yaml_text.dump(OmegaConf.to_container(theirs)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a: ${b}\nb: 1",
        "a: &x [1]\nb: 2",
        "? [1, 2]\n: 3",
        "1: a\ntrue: b",
        "- 1\n- a: 2",
        "a: !!str 5",
        "",
    ],
)
def test_what_gradlab_does_not_write_is_read_as_omegaconf_does(text: str) -> None:
    def outcome(read: Any) -> Any:
        try:
            return read(text)
        except Exception as error:
            return type(error)

    theirs = outcome(lambda given: OmegaConf.to_container(OmegaConf.create(given)))
    assert outcome(yaml_text.load) == theirs


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 30_000, "a: 1\na: 2", "a: *b", "a: [", "\t"]
)
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises((yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError)):
        yaml_text.load(text)
