"""The folder listing is the way of the data: which room may import which."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradlab

PACKAGE = Path(gradlab.__file__).parent
TABLE = Path(__file__).parents[1] / "docs" / "architecture.md"
ROOMS = sorted(
    path.stem
    for path in PACKAGE.iterdir()
    if path.name not in ("__init__.py", "__pycache__", "conf", "py.typed")
)

CONFIG = ("config", "identity", "components", "schedule")
PARTS = ("tasks", "initialisers", "clipping", "optimisers", "regularisers")
MAY_KNOW: dict[str, set[str]] = {  # beside itself
    "jacobian": set(),
    "cells": set(),
    "decay": set(),
    "sentences": {"decay"},
    "theory": set(),
    "exercises": set(),
    "records": set(),
    "advice": {"jacobian", "decay", "sentences", "cells", "initialisers", *CONFIG},
    "schedule": set(),
    "printable": set(),
    "working_folder": set(),
    "components": {"working_folder"},
    "explain": {"components"},
    "config": {"components", "schedule"},
    "identity": {"config"},
    **{part: set(CONFIG) for part in PARTS},
    "regularisers": {"cells", *CONFIG},
    "models": {"cells", *CONFIG},
    "probes": {"cells", "jacobian", "decay", "theory", *CONFIG},
    "training": {"cells", "jacobian", "models", "probes", *PARTS, *CONFIG},
    "tracking": {"decay", "sentences", "records", "figures"},
    "dashboard": {"tracking", "claims", "working_folder"},
    "figures": {"decay", "sentences", "records", "tracking", "explain", "components"},
    "point": {"training", "probes", "tracking", "records", "decay", "sentences", "advice", *CONFIG},
    "sweeps": {"point", "training", "records", "decay", "sentences", "figures", "tracking"}
    | {*CONFIG},
    "trained": {"__main__", "models", "point", "records", "sweeps", "training", *CONFIG},
    "from_python": {"__main__", "explain", "sweeps", "records", *CONFIG},
    "claims": {"records", "figures", "explain", *CONFIG},
    "studies": {"jacobian", "cells", "models", "decay", "theory", "records", "tracking", "figures"}
    | {"claims", "sweeps", "training", *PARTS, *CONFIG},
    "integrations": {
        "__main__",
        "jacobian",
        "cells",
        "models",
        "probes",
        "training",
        "point",
        "records",
    }
    | {"tracking", "decay", "sentences", *CONFIG},
}
ONLY = {  # who may import these packages
    "wandb": {"tracking"},
    "orbax": {"point"},
    "submitit": {"sweeps"},
    "ray": {"sweeps"},
    "hydra": {
        "__main__",
        "from_python",
        "explain",
        "config",
        "components",
        "point",
        "sweeps",
        "claims",
    },
    "matplotlib": {"figures", "studies", "tasks"},
    "lightning": {"integrations"},
    "safetensors": {"integrations"},
    **{package: set() for package in ("torch", "keras")},  # read without being imported
}


def imports(room: str) -> Iterator[str]:
    """Every module that the files of a room import, by its dotted name."""
    path = PACKAGE / room
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == "gradlab":
                yield from (_home(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module)


def _home(name: str) -> str:
    """The module of a name of the package: a room, or a public function's."""
    if name in ROOMS:
        return f"gradlab.{name}"
    return str(getattr(gradlab, name).__module__)


@pytest.mark.parametrize("room", MAY_KNOW)
def test_a_room_knows_only_what_comes_before_it_on_the_way(room: str) -> None:
    known = {x.split(".")[1] for x in imports(room) if x.startswith("gradlab.")}
    assert known <= MAY_KNOW[room] | {room, "printable"}


def test_the_engine_needs_jax_flax_and_threads_of_blas_only() -> None:
    packages = {name.split(".")[0] for name in imports("jacobian")}
    assert packages - sys.stdlib_module_names == {
        *("jax", "flax", "numpy", "jaxtyping", "threadpoolctl", "gradlab")
    }


@pytest.mark.parametrize("package", ONLY)
def test_a_package_has_its_room(package: str) -> None:
    users = {room for room in ROOMS if package in {x.split(".")[0] for x in imports(room)}}
    assert users <= ONLY[package]


def test_architecture_lists_every_room() -> None:
    section = TABLE.read_text().split("## The rooms")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    rooms = {f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py" for room in ROOMS}
    assert rooms <= listed
