"""`gradlab.watch`: how far a gradient reaches in a network that somebody's own loop trains."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from gradlab.components import validate, validator
from gradlab.integrations.cells import Inputs, check_inputs, drive_cells
from gradlab.integrations.folder import nested, plain
from gradlab.integrations.gradient_norms import Clip, GradientNorms
from gradlab.integrations.probe_choice import Probe, choose_probes
from gradlab.integrations.step_cell import Start
from gradlab.integrations.watcher import Watcher
from gradlab.jacobian.adjoints import Loss
from gradlab.schedule import Schedule
from gradlab.tracking.users_run import UsersRun

__all__ = ["Watcher", "watch"]


def watch(
    inputs: Inputs,
    *,
    probes: Probe | Sequence[Probe] | Mapping[str, Probe] = ("spectral",),
    every: str | int | Sequence[int] = "log",
    run: Any = None,
    name: str = "",
    folder: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    loss: Loss | None = None,
    targets: PyTree = None,
    lengths: Any = None,
    initial_carry: PyTree = None,
    stride: int = 1,
    clip: Clip = None,
) -> Watcher:
    """Return a watcher, which measures a network when it is due while somebody's loop trains it.

    Args:
        inputs: held-out sequences, (time, features) or (batch, time, features); as the module reads
            them, (time, batch, features), if they are of an nnx.RNN with time_major, or a tensor of
            a torch module without batch_first. Or a mapping from the names of the model's cells, or
            of bidirectional modules, to theirs. Or a function of the model that returns either, for
            a cell that reads what lies below it; it is called when a measurement is due, with the
            model as in evaluation (dropout, batch norms), and leaves no trace in it.
        probes: names of conf/probe/ ("spectral", "typical", "lyapunov", "statistics", …), or
            functions `probe(probed, *, name) -> gradlab.probes.Measurement`. Where the carry has no
            part h, those of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ take the whole carry.
        every: "log" (at steps 1, 4, 16, 64, …), "ends", N (every N steps) or a list of steps. The
            first call is always measured, and by `finish` the last one.
        run: a W&B run of yours, whose own step stays as you count it: a measurement joins the row
            that you are filling (after your run.log(…, step=…), before a run.log without), with
            "train/step" beside it. Your metrics are yours to log.
        name: of several watchers that log to one run, say one for each network or set of inputs:
            their metrics and maps there begin with it ("test/jacobian/decay_rate").
        folder: gets rows and maps, as a point's folder has them: `load_runs`, `load_gradients` and
            every figure read it or a folder above it. Of several cells each has a folder in it.
        config: your hyperparameters, flat ({"init.gain": 1.5}) or nested; figures of several
            folders part runs by those that vary. Those that your W&B run's config lacks are added.
        overwrite: delete another run's records in `folder`. Otherwise they are refused, unless they
            are those of this run up to an earlier step than the first one now.
        loss: of the probes "adjoint" and "contribution": loss(carry, target) of one step, as
            `gradlab.adjoint_log_norms` takes it, traced at each measurement.
        targets: the second argument of `loss`, arrays (time, ...) or (batch, time, ...).
        lengths: the number of steps of each sequence; inputs that follow are padding.
        initial_carry: s⁽⁰⁾ of one sample, where a step function is watched.
        stride: maps are kept at every stride-th step.
        clip: your clipping, for the norms of the `grads` that the watcher is given: an optax
            transformation, or the threshold of clipping by global norm.

    Returns:
        A `Watcher`; use it as a context manager or call its `finish`.

    Raises:
        ValueError: an argument is invalid; the message names what is allowed.

    Example:
        >>> model = nnx.RNN(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)))
        >>> optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        >>> error = lambda model: ((model(x)[:, -1, :3] - x[:, 0]) ** 2).mean()
        >>> with gradlab.watch(x, folder="runs/mine", config={"init.gain": 1.5}) as watcher:
        ...     for step in range(5):
        ...         loss, grads = nnx.value_and_grad(error)(model)
        ...         watcher(step, model, grads=grads, loss=loss)
        ...         optimizer.update(model, grads)
        >>> gradlab.load_metrics("runs/mine")["train/step"].tolist()
        [0, 1, 4]
    """
    check_inputs(inputs)
    schedule: str | int | list[int] = validate(validator(Schedule), every, "every")
    if (loss is None) != (targets is None):
        raise ValueError("loss and targets belong together: give both, or leave both out.")
    if config is not None and not isinstance(config, Mapping):
        raise ValueError(
            f"config must be a mapping; got {type(config).__name__}: give vars(args) or asdict(it)."
        )
    if folder is not None and not isinstance(folder, str | Path):
        raise ValueError(f"folder must be a path, such as 'runs/mine'; got {folder!r:.80}.")
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
        raise ValueError(f"stride must be a whole number of at least 1; got {stride!r}.")
    start = None if initial_carry is None else Start(initial_carry)
    settings = plain(config or {})
    return Watcher(
        partial(drive_cells, inputs=inputs, targets=targets, lengths=lengths, start=start),
        sections=choose_probes(probes, has_loss=loss is not None),
        every=schedule,
        run=UsersRun(run, nested(settings, {}), name),
        folder=None if folder is None else Path(folder),
        config=settings,
        overwrite=overwrite,
        loss=loss,
        stride=stride,
        gradients=GradientNorms(clip),
    )
