"""Configs as Hydra composes them, and sweeps run from the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from gradlab import config
from gradlab.__main__ import CONF

Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def composed() -> Compose:
    """composed("model=lstm", …): the checked config of one point."""
    config.register()

    def make(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return config.check(compose("config", list(overrides)))

    return make


def gradlab(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, in a process of its own."""
    command = [sys.executable, "-m", "gradlab", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
