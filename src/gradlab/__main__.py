"""`python -m gradlab`: Hydra composes the config, each point becomes a job, the sweep runs them.

From here: hydra_plugins/gradlab_launcher.py receives the points, config.py checks them, sweeps/
runs them together, point/ trains, measures and records one, tracking/ logs it to W&B, figures/
draw.
"""

from gradlab.working_folder import leave_path

if __name__ == "__main__":
    leave_path()  # before anything else is imported

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent
# A wheel carries conf/ inside the package; a checkout has it at the top.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if path.is_dir())


def run(composed: "DictConfig") -> float | None:
    """Run a single point: Hydra calls this for each job of a launcher that is not gradlab's.

    It returns the point's objective to a sweeper that searches. With `measure` (and
    `hydra.mode: RUN`) a table is computed directly, and nothing is trained.
    """
    if composed.measure is not None:
        from gradlab.point.direct import run_measurement

        run_measurement(composed)
        return None
    from gradlab.sweeps import run_alone

    return run_alone(composed)


def main() -> None:
    """Run gradlab from the command line; wrong input ends in one sentence and exit status 1."""
    try:
        _main()
        print(end="", flush=True)
    except BrokenPipeError:  # no one reads on, as in `gradlab --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
        sys.exit(1)


def _main() -> None:
    from gradlab.explain.errors import sentence
    from gradlab.explain.help import help_on
    from gradlab.explain.words import arguments, config_folders, replaced
    from gradlab.printable import escape_what_cannot_be_printed

    escape_what_cannot_be_printed()
    words = sys.argv[1:]
    if words[:1] == ["figure"]:
        from gradlab.figures import command

        command.main(words[1:])
        return
    if "--version" in words:
        from importlib.metadata import version

        print(f"gradlab {version('gradlab')}")
        return
    try:
        if {"-h", "--help"} & set(words):
            print(help_on(words, CONF, config_folders(words)))
            return
        words = arguments(words, CONF)
        for warning in replaced(words):
            print(f"gradlab: {warning}", file=sys.stderr)
    except ValueError as error:
        sys.exit(f"gradlab: {error}")
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints the error itself, and ends here
    try:
        _run_hydra(words)
    except (KeyboardInterrupt, Exception) as error:
        if _is_interrupt(error):  # while points run, sweeps/interrupts.py takes it
            print("gradlab: interrupted.", file=sys.stderr)
            sys.exit(130)
        if (
            isinstance(error, BrokenPipeError)
            or wants_traceback
            or not is_told_in_a_sentence(error)
        ):
            raise
        sys.exit(f"gradlab: {sentence(error)}")


def _run_hydra(words: list[str]) -> None:
    import hydra  # imported late: --help need not wait for it
    import hydra._internal.hydra as internal

    from gradlab.config import register
    from gradlab.tracking.environment import defaults
    from hydra_plugins.gradlab_commands import Commands

    register(defaults(os.environ))
    sys.argv[1:] = words
    internal.Hydra = Commands  # type: ignore[misc]  # what hydra.main runs
    hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run)()


def _is_interrupt(error: BaseException | None) -> bool:
    """Return whether Ctrl-C caused an error (an import that it cuts short is an ImportError)."""
    if isinstance(error, KeyboardInterrupt) or error is None:
        return error is not None
    return _is_interrupt(error.__cause__)


def is_told_in_a_sentence(error: BaseException) -> bool:
    """Return whether an error is the user's or the system's, and no fault of the program."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from gradlab.components import ConfigError

    told = (ConfigError, HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError)
    return isinstance(error, (*told, OSError))


if __name__ == "__main__":
    main()
