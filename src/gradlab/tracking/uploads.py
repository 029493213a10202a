"""Runs sent to W&B's server while they are written, by a process of its own.

`wandb=online` logs as offline does, into the sweep's folder, and has W&B's own `wandb sync` follow
what is written there. So a server that is slow, refuses or crashes W&B's client never reaches the
sweep, and what it did not take stays on disk, whole.
"""

import atexit
import os
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

PAUSE = 30.0  # seconds between the starts of two processes, each of which costs a CPU second
PATIENCE = 60.0  # seconds that the end of a sweep waits for its last runs to be sent
LIMITS = {  # W&B would try for hours; a few minutes do, since nothing is lost
    "WANDB_HTTP_TIMEOUT": "15",  # seconds
    "WANDB__GRAPHQL_RETRY_MAX": "2",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "15",
    "WANDB__FILE_STREAM_RETRY_MAX": "2",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "2",
}


class Uploads:
    """Sends runs in the order they are opened, those of half a minute together.

    After the first that the server does not take it says so once, and sends no more.
    """

    def __init__(self) -> None:
        """Wait for runs; stop when Python ends."""
        self._changed = threading.Condition()
        self._waiting: list[Path] = []
        self._sending: list[Path] = []
        self._process: subprocess.Popen[str] | None = None
        self._given_up = self._closing = False
        threading.Thread(target=self._work, daemon=True).start()
        atexit.register(self.close)

    def add(self, run: Path) -> None:
        """Send a run, from its folder, which may still be written to."""
        with self._changed:
            self._waiting.append(run)
            self._changed.notify_all()

    def close(self, patience: float = PATIENCE) -> None:
        """Wait a while for what has not been sent, and leave the rest for later."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(self._idle, patience)
            if not self._idle():
                self._give_up(f"they were not sent {patience:.0f} s after the last point")
            if self._process:
                self._process.kill()

    def _idle(self) -> bool:
        return self._given_up or not (self._waiting or self._sending)

    def _work(self) -> None:
        while not self._given_up:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._sending, self._waiting = self._waiting, []
                self._process = _sync(self._sending)
            begin = time.monotonic()
            problem = _problem(self._process, self._sending)
            with self._changed:
                if problem:
                    self._give_up(problem)
                self._sending = []
                self._changed.notify_all()
                left = begin + PAUSE - time.monotonic()
                self._changed.wait_for(lambda: self._closing, max(left, 0))

    def _give_up(self, problem: str) -> None:
        if not self._given_up:
            self._given_up = True
            folder = [*self._sending, *self._waiting][0].parent
            if folder.is_relative_to(Path.cwd()):
                folder = folder.relative_to(Path.cwd())
            print(
                f"gradlab: W&B runs are kept offline: {problem}. "
                f"Send them later with: wandb sync {folder}",
                file=sys.stderr,
            )


@cache
def uploads() -> Uploads:
    """Those of this process."""
    return Uploads()


def _sync(runs: list[Path]) -> subprocess.Popen[str]:
    """Start W&B's upload of some runs, which follows those that are still open."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, runs)],
        cwd=runs[0].parents[1],
        env=LIMITS | dict(os.environ),
        stdin=subprocess.PIPE,  # closed when this process ends, however it does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _problem(process: subprocess.Popen[str], runs: list[Path]) -> str:
    """Wait for an upload; what went wrong in one line, else nothing."""
    assert process.stdout
    lines = [line.removeprefix("wandb: ").strip() for line in process.stdout if line.strip()]
    errors = [x.partition("ERROR ")[2].partition(". ")[0] for x in lines if "ERROR " in x]
    marks = [mark for run in runs for mark in run.glob("*.wandb.synced")]
    if len(marks) == len(runs) and not errors:
        return ""
    for mark in marks:  # W&B sets it on a run that it gave up, too, and would then skip it
        mark.unlink()
    last = [line.rpartition("Error: ")[2].rstrip(".") for line in lines[-1:]]
    return [*errors, *last, "W&B's client ended without a word"][0]


def _main() -> None:
    """Be the process that uploads; end when the one that started it does."""

    def follow() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # the sweep comes first
    from wandb.cli.cli import cli

    cli(["beta", "sync", "--live", *sys.argv[1:]])


if __name__ == "__main__":
    _main()
