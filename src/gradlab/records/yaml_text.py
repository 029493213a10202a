"""YAML as OmegaConf reads and writes it, by libyaml: a tenth of the time, for files of every point.

What is read so is what gradlab writes: plain nested sections. A text made to be long or deep takes
the parser in Python, and what is not plain (tags, keys that are no names) goes OmegaConf's way,
which also says what is wrong.
"""

from functools import cache
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader

NESTING, NESTED, LONGEST = "[{-?", 2000, 2**16  # libyaml's reader has no limit of its own
SCALARS = (str, int, float, type(None))


def load(text: str) -> Any:
    """Return YAML as plain data; `${...}` stays text, where it is no interpolation too.

    Raises:
        yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError: it is none.
    """
    if "*" in text and any(isinstance(x, yaml.AliasEvent) for x in yaml.parse(text)):
        raise ValueError("aliases, which gradlab never writes, may stand for no end of data")
    is_flat = len(text) < LONGEST and sum(map(text.count, NESTING)) < NESTED
    try:
        data = yaml.load(text, Loader=_loader() if is_flat else get_yaml_loader())
    except yaml.YAMLError:
        pass  # in OmegaConf's words
    else:
        if isinstance(data, dict | list) and _is_plain(data):
            return data
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def dump(plain: Any) -> str:
    """Return plain data as YAML, laid out as `OmegaConf.to_yaml` does.

    (Characters beyond the first plane of Unicode are escaped, and what OmegaConf's would read back
    as another text is not.)
    """
    text: str = yaml.dump(
        plain, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_dumper()
    )
    return text


def _is_plain(node: Any) -> bool:
    if isinstance(node, dict):
        return all(isinstance(key, str) and _is_plain(child) for key, child in node.items())
    return all(map(_is_plain, node)) if isinstance(node, list) else isinstance(node, SCALARS)


@cache
def _loader() -> Any:
    """Return OmegaConf's loader, with libyaml's parser where PyYAML has it."""
    own: Any = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return own

    class Loader(yaml.CSafeLoader, own):
        yaml_implicit_resolvers = own.yaml_implicit_resolvers
        yaml_constructors = own.yaml_constructors

    return Loader


@cache
def _dumper() -> Any:
    """Return OmegaConf's dumper, with libyaml's emitter where PyYAML has it."""
    emitter: Any = yaml.CDumper if yaml.__with_libyaml__ else yaml.Dumper

    class Dumper(emitter):
        """Arguments of somebody's part may be tuples, which are lists in YAML."""

        yaml_representers = get_omega_conf_dumper().yaml_representers | {
            tuple: yaml.representer.SafeRepresenter.represent_list
        }

    return Dumper
