"""Uploading runs to W&B's server while they are written, in a process of its own.

With `wandb=online` runs are logged to disk, as with `wandb=offline`, and `wandb sync` sends them
from there. So a server that is slow, refuses runs or crashes W&B's client cannot disturb the sweep,
and runs that were not uploaded are still complete on disk.
"""

import atexit
import os
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

PAUSE = 30.0  # seconds between the starts of two uploads, each of which costs a CPU second
PATIENCE = 60.0  # seconds that the end of a sweep waits for its last uploads
LIMITS = {  # W&B retries for hours by default; giving up after minutes loses nothing
    "WANDB_HTTP_TIMEOUT": "15",  # seconds
    "WANDB__GRAPHQL_RETRY_MAX": "2",
    "WANDB__FILE_STREAM_TIMEOUT_SECONDS": "15",
    "WANDB__FILE_STREAM_RETRY_MAX": "2",
    "WANDB__FILE_TRANSFER_RETRY_MAX": "2",
}


class Uploader:
    """Uploads queued runs from a background thread, one process for all that are waiting.

    After the first upload that fails it prints one warning and uploads no more.
    """

    def __init__(self) -> None:
        """Start the thread, which waits for runs; it is closed when Python exits."""
        self._changed = threading.Condition()
        self._waiting: list[Path] = []
        self._sending: list[Path] = []
        self._process: subprocess.Popen[str] | None = None
        self._given_up = self._closing = False
        threading.Thread(target=self._work, daemon=True).start()
        atexit.register(self.close)

    def add(self, run: Path) -> None:
        """Queue a run's folder for upload; the run may still be open."""
        with self._changed:
            self._waiting.append(run)
            self._changed.notify_all()

    def close(self, patience: float = PATIENCE) -> None:
        """Wait for the remaining uploads, at most `patience` seconds, then stop."""
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
            start = time.monotonic()
            problem = _problem(self._process, self._sending)
            with self._changed:
                if problem:
                    self._give_up(problem)
                self._sending = []
                self._changed.notify_all()
                remaining = start + PAUSE - time.monotonic()
                self._changed.wait_for(lambda: self._closing, max(remaining, 0))

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
def shared_uploader() -> Uploader:
    """Return the uploader that all runs of this process share."""
    return Uploader()


def _sync(runs: list[Path]) -> subprocess.Popen[str]:
    """Start a process that uploads runs and follows those that are still open to their end."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, runs)],
        cwd=runs[0].parents[1],
        env=LIMITS | dict(os.environ),
        stdin=subprocess.PIPE,  # closes when this process ends, even if it is killed
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _problem(process: subprocess.Popen[str], runs: list[Path]) -> str:
    """Wait for an upload to end; return its first error in one line, "" if it succeeded."""
    assert process.stdout
    lines = [line.removeprefix("wandb: ").strip() for line in process.stdout if line.strip()]
    errors = [line.partition("ERROR ")[2].partition(". ")[0] for line in lines if "ERROR " in line]
    marks = [mark for run in runs for mark in run.glob("*.wandb.synced")]
    if len(marks) == len(runs) and not errors:
        return ""
    for mark in marks:  # W&B marks runs that it gave up on, too, and would skip them later
        mark.unlink()
    last_line = [line.rpartition("Error: ")[2].rstrip(".") for line in lines[-1:]]
    return [*errors, *last_line, "W&B's client ended without a word"][0]


def _main() -> None:
    """Upload the runs named on the command line; exit when the parent process ends."""

    def exit_with_parent() -> None:
        sys.stdin.read()  # returns when the parent's end of the pipe closes
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # give the sweep precedence
    from wandb.cli.cli import cli

    cli(["beta", "sync", "--live", *sys.argv[1:]])


if __name__ == "__main__":
    _main()
