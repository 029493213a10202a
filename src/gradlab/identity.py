"""A point's identity, its checkpoints' digest and its program's key: what its numbers depend on.

All three follow from `config.ROLES`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from gradlab.config import ROLES, Config

# Keys that the records of earlier code lack, which ran as it does with these values; at these they
# enter neither identities nor digests, so that such records are resumed as what they are.
LATER: Mapping[str, Any] = {
    "model.dtype": "float32",
    "model.other_limit": None,
    "model.readout": "linear",
    "model.readout_bias": 0.0,
    "model.skip": "none",
    "train.loss_scale": None,
    "train.objective": "mean",
    "train.stop": None,
}


def without_bookkeeping(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as plain data without its bookkeeping and what is LATER at its default."""
    return {
        section: {
            key: child
            for key, child in value.items()
            if not _is_bookkeeping(f"{section}.{key}")
            and not (key == "path" and "digest" in value)  # where a file lies decides nothing
            and (f"{section}.{key}" not in LATER or child != LATER[f"{section}.{key}"])
        }
        if isinstance(value, Mapping)
        else value
        for section, value in record.items()
        if not _is_bookkeeping(section)
    }


def identity(config: Config) -> str:
    """Return a point's identity: a hash of gradlab's version and its config less bookkeeping."""
    text = json.dumps(
        [version("gradlab"), without_bookkeeping(asdict(config))], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_digest(config: Config) -> bytes:
    """Return the SHA-256 of the settings that determine a run's numbers, whatever the version."""
    text = json.dumps([compiled(config), config.seed], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


def traced(config: Config) -> dict[str, float]:
    """Return the values that a compiled program takes as arguments: the seed, and real settings.

    Everything else (sizes, lengths, which function) determines what is compiled.
    """
    reals = {
        f"{section}.{key}": value
        for section, role in ROLES.items()
        if role.compiled and role.traced
        for key, value in getattr(config, section).items()
        if isinstance(value, float)
    }
    return reals | {"seed": config.seed}


def compiled(config: Config) -> dict[str, Any]:
    """Return the sections that determine what is compiled, their traced values included."""
    decisive = without_bookkeeping(asdict(config))
    return {section: value for section, value in decisive.items() if ROLES[section].compiled}


def program_key(config: Config) -> str:
    """Return a key that is equal for points that share a compiled program."""
    arguments = traced(config)
    fixed = {
        section: {k: v for k, v in values.items() if f"{section}.{k}" not in arguments}
        for section, values in compiled(config).items()
    }
    return json.dumps([fixed, sorted(arguments)], sort_keys=True)


def _is_bookkeeping(key: str) -> bool:
    return key in ROLES and ROLES[key].bookkeeping
