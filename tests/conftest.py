"""Configs as Hydra composes them, and sweeps run from the command line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import settings

from gradlab import config
from gradlab.__main__ import CONF
from gradlab.integrations import unfinished
from gradlab.records import leases


@pytest.fixture(autouse=True, scope="module")
def _programs_end_with_their_file() -> Iterator[None]:
    """Let go of compiled programs: each maps memory, and Linux allows a process 65,530 mappings.

    Past that, XLA's next compilation is a segmentation fault.
    """
    yield
    jax.clear_caches()


# Tests mostly compile. The flag takes a third off it. Programs are kept for other tests and for the
# next run, by each worker for itself, since JAX reads and writes its cache without a lock.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
KEPT = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".pytest_cache" / "xla" / WORKER),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}
for option, value in KEPT.items():
    jax.config.update(option, value)
    os.environ[option.upper()] = str(value)  # for the programs that tests start

# The first example compiles or imports; a deadline would fail it on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

Compose = Callable[..., config.Config]


@pytest.fixture
def composed() -> Compose:
    """composed("model=lstm", …): the checked config of one point."""
    config.register()

    def make(*overrides: str) -> config.Config:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            made = compose("config", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(made)  # what is chosen may depend on Hydra's choices
        return config.check(made)

    return make


@pytest.fixture
def no_watcher_left() -> Iterator[None]:
    """Let go of watchers that a test has not finished, which the end of the process would."""
    before = leases.held()
    yield
    unfinished.open_watchers.clear()
    for folder in set(leases.held()) - set(before):
        leases.release(folder)


@pytest.fixture
def signed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in to W&B, and its server does not answer."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def gradlab(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder, in a process of its own."""
    command = [sys.executable, "-m", "gradlab", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
