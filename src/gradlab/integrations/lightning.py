"""PyTorch Lightning: `gradlab.watch` as a callback of its Trainer."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gradlab.integrations.watch import watch
from gradlab.integrations.watcher import Watcher

STEP = "trainer/global_step"  # the x axis that Lightning's logger gives all metrics of a W&B run


class Watch(Callback):
    """Measures the recurrent modules of a LightningModule while Lightning trains it.

    It measures before the first update, then whenever it is due by `trainer.global_step`. The norms
    of gradients are those before Lightning clips them, and, where the Trainer clips by norm, after;
    with manual optimisation, those that `optimizer.step` finds, after a clipping of one's own.
    A `WandbLogger` of the Trainer's gets the metrics and maps, in rows of their own. With several
    processes, the first one measures.

    Example:
        >>> import torch
        >>> from lightning.pytorch import Trainer
        >>> from gradlab.integrations.lightning import Watch
        >>> held_out = torch.randn(8, 50, 3)  # (batch, time, features)
        >>> trainer = Trainer(callbacks=[Watch(held_out, folder="runs/mine")], logger=False)
    """

    def __init__(self, inputs: Any, **options: Any) -> None:
        """Check the arguments.

        Args:
            inputs: held-out sequences, as in `gradlab.watch`, a tensor as the module reads it; a
                mapping by the names of the LightningModule's recurrent modules if there are
                several; or a function of the LightningModule.
            options: of `gradlab.watch`. By default `run` is that of the Trainer's `WandbLogger`,
                and `clip` its `gradient_clip_val` where that is a norm.

        Raises:
            ValueError: an argument is invalid; the message names what is allowed.
        """
        self._inputs, self._options = inputs, options
        watch(inputs, **options)  # refuses what is wrong before anything is trained
        self._watcher: Watcher | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the module as it is before the first update."""
        if not trainer.is_global_zero:
            return
        defaults = {"run": _wandb_run(trainer), "clip": _clipped_norm(trainer)}
        options = defaults | self._options
        if self._watcher is not None and trainer.global_step > 0:  # fit goes on: its own records
            options["overwrite"] = False
        self._watcher = watch(self._inputs, **options)
        self._watcher(trainer.global_step, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Take the gradients in, which Lightning clips in place after this hook."""
        if self._watcher is not None:
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            if grads := [p.grad for p in parameters if p.grad is not None]:
                self._watcher.add_gradients(grads)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *batch: Any
    ) -> None:
        """Measure the module if it is due."""
        if self._watcher is not None:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            metrics = {} if loss is None else {"loss": loss * trainer.accumulate_grad_batches}
            self._watcher(trainer.global_step, pl_module, **metrics)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the module as it is after the last update, and close the records."""
        if self._watcher is not None:
            self._watcher.finish()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the records as failed or interrupted."""
        if self._watcher is not None:
            self._watcher.__exit__(type(exception), exception, exception.__traceback__)


class _RowsOfTheirOwn:
    """Logs to the W&B run of a `WandbLogger` with the step that its metrics are drawn against."""

    def __init__(self, run: Any, trainer: Trainer) -> None:
        self._run, self._trainer = run, trainer
        self.config = run.config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RowsOfTheirOwn) and self._run is other._run

    @property
    def step(self) -> int:
        return int(self._run.step)

    def log(self, row: dict[str, Any], commit: bool = True) -> None:
        del commit  # Lightning's next row may be many updates away
        if row:
            self._run.log(row | {STEP: self._trainer.global_step})


def _wandb_run(trainer: Trainer) -> _RowsOfTheirOwn | None:
    """Return the W&B run that a Trainer logs to, if it does."""
    loggers: list[Any] = [x for x in trainer.loggers if type(x).__name__ == "WandbLogger"]
    return _RowsOfTheirOwn(loggers[0].experiment, trainer) if loggers else None


def _clipped_norm(trainer: Trainer) -> float | None:
    """Return the threshold of a Trainer that clips gradients by their global norm."""
    is_norm = trainer.gradient_clip_algorithm in (None, "norm")  # None: Lightning's default
    threshold = trainer.gradient_clip_val if is_norm else None
    return float(threshold) if threshold else None
