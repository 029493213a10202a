"""The network that a point has trained, read back from its checkpoint."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from gradlab import records
from gradlab.__main__ import CONF
from gradlab.components import ConfigError, targets_of
from gradlab.config import Config, from_record
from gradlab.models import Network
from gradlab.point import checkpoints
from gradlab.point.sources import changed_sources
from gradlab.sweeps.trust import targets_below
from gradlab.training.precision import in_float32, types_of
from gradlab.training.program import Program


@in_float32
def load_network(run_folder: str | Path, *, trust: Sequence[str] = ()) -> Network:
    """Return the network of a point as its last checkpoint has it.

    Args:
        run_folder: the point's folder: `path` in a row of `load_runs`.
        trust: functions and classes that the point's config names beside gradlab's own, by dotted
            path, such as a cell of yours. Building the network calls them, and whoever made the
            folder wrote their names.

    Returns:
        A Flax NNX module: called with inputs (batch, time, features) it gives the outputs of every
        step; `.cell` is what `gradlab.jacobian_log_norms` takes, `.readout` maps its output.
        One of model.dtype=float64 computes in float64 within `with jax.enable_x64(True):`;
        elsewhere JAX warns and computes in float32.

    Warns:
        UserWarning: the code of a part that is not gradlab's was edited since the point ran.

    Raises:
        FileNotFoundError: the folder is no point's, or the point has no checkpoint
            (train.checkpoint_seconds=inf keeps none).
        ValueError: its files are not as they were written, or of another version of gradlab; or
            the folder is of `gradlab.watch`, which keeps no network.
        ConfigError: its config names what is neither gradlab's nor trusted.

    Example:
        >>> network = gradlab.load_network(runs["path"].iloc[0])
        >>> bits = jnp.ones((4, 20, 1))  # inputs of task=echo
        >>> network(bits).shape, gradlab.jacobian_log_norms(network.cell, bits).shape
        ((4, 20, 2), (4, 21, 21))
    """
    folder = Path(run_folder)
    try:
        status = records.load_verified(folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{str(folder)!r} is no point's folder: give `path` of a row of gradlab.load_runs."
        ) from error
    config = _checked_config(folder, trust)
    program = Program(config)
    with types_of(config.model.dtype):
        state = checkpoints.load(folder, config, program.abstract_state)
    if state is None:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no checkpoint: train it with train.checkpoint_seconds=60."
        )
    if changed := changed_sources(status, config):
        warnings.warn(
            f"The code of {', '.join(changed)} has changed since {str(folder)!r} was run: the "
            "network is built by the present code, and may be another than the one recorded.",
            stacklevel=3,  # beyond in_float32
        )
    with types_of(config.model.dtype):
        return program.merge(state.parameters, state.constants)


def _checked_config(folder: Path, trust: Sequence[str]) -> Config:
    """Return a point's config, if all that it names may be called."""
    record = records.load_yaml(folder / records.CONFIG)
    known = {*targets_below([CONF]), *trust}
    foreign = {name: key for key, name in targets_of(record) if name not in known}
    if foreign:
        listed = ", ".join(f"{name} ({key})" for name, key in foreign.items())
        raise ConfigError(
            f"{str(folder)!r} calls what is not gradlab's: {listed}. If you trust it, say "
            f"load_network(…, trust={[*trust, *foreign]})."
        )
    if "cell" not in record.get("model", {}):
        raise ValueError(
            f"{str(folder)!r} is a training loop that gradlab.watch has measured: the network and "
            "its weights are yours, and not in the folder."
        )
    try:
        return from_record(record)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{str(folder)!r} is of another version of gradlab.") from error
