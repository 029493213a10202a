"""Uploading runs to W&B's server while they are written, in a process of its own.

With `wandb=online` runs are logged to disk, as with `wandb=offline`, and `wandb sync` sends them
from there. So a server that is slow, refuses runs or crashes W&B's client cannot disturb the sweep,
and runs that were not uploaded are still complete on disk.
"""

import atexit
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from gradlab import records
from gradlab.tracking import environment
from gradlab.tracking.client import base_url

SENDER = Path(__file__).with_name("sender.py")
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
        self._folder = tempfile.TemporaryDirectory(prefix="gradlab-wandb-")
        threading.Thread(target=self._work, daemon=True).start()
        atexit.register(self.close)

    def add(self, run: Path) -> None:
        """Queue a run's folder for upload; the run may still be open."""
        with self._changed:
            self._waiting.append(run)
            self._changed.notify_all()

    def withdraw(self, run: Path) -> bool:
        """Take a run out of the queue; return whether it may be deleted: it is not being sent."""
        with self._changed:
            self._waiting = [other for other in self._waiting if other != run]
            return run not in self._sending or any(run.glob("*.wandb.synced"))

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
            start = time.monotonic()
            problem = self._send()
            with self._changed:
                if problem:
                    self._give_up(problem)
                self._sending = []
                self._changed.notify_all()
                remaining = start + PAUSE - time.monotonic()
                self._changed.wait_for(lambda: self._closing, max(remaining, 0))

    def _send(self) -> str:
        """Upload the runs whose turn it is; return the first error in one line, "" if none."""
        try:
            self._process = start_upload(self._sending, Path(self._folder.name))
        except OSError as error:
            return str(error)
        return first_problem(self._process, self._sending)

    def _give_up(self, problem: str) -> None:
        if not self._given_up:
            self._given_up = True
            folder = [*self._sending, *self._waiting][0].parent
            if folder.is_relative_to(Path.cwd()):
                folder = folder.relative_to(Path.cwd())
            print(
                f"gradlab: W&B runs are kept offline: {problem}. "
                f"Send them later with: wandb sync {shlex.quote(str(folder))}",
                file=sys.stderr,
            )


@cache
def shared_uploader() -> Uploader:
    """Return the uploader that all runs of this process share."""
    return Uploader()


def start_upload(runs: list[Path], folder: Path) -> subprocess.Popen[str]:
    """Start a process that uploads runs and follows those that are still open to their end.

    Args:
        runs: their folders.
        folder: an empty one, for the process to start in and for its log. W&B takes settings from
            the folder that it starts in, so that is none that somebody else may have written.
    """
    (folder / records.WANDB).mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-P", str(SENDER), *map(str, runs)],
        cwd=folder,
        env=LIMITS | {"WANDB_BASE_URL": base_url()} | environment.without(os.environ),
        stdin=subprocess.PIPE,  # closes when this process ends, even if it is killed
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def first_problem(process: subprocess.Popen[str], runs: list[Path]) -> str:
    """Wait for an upload to end; return its first error in one line, "" if it succeeded."""
    assert process.stdout
    lines = [line.removeprefix("wandb: ").strip() for line in process.stdout if line.strip()]
    errors = [line.partition("ERROR ")[2].partition(". ")[0] for line in lines if "ERROR " in line]
    runs = [run for run in runs if run.is_dir()]  # one that was sent may have been replaced since
    marks = [mark for run in runs for mark in run.glob("*.wandb.synced")]
    if len(marks) == len(runs) and not errors:
        return ""
    for mark in marks:  # W&B marks runs that it gave up on, too, and would skip them later
        mark.unlink()
    last_line = [line.rpartition("Error: ")[2].rstrip(".") for line in lines[-1:]]
    return [*errors, *last_line, "W&B's client ended without a word"][0]
