"""`python -m gradlab`: Hydra composes the config, each point becomes a job, the sweep runs them.

From here: hydra_plugins/gradlab_launcher.py receives the points, config.py checks them, sweep/ runs
them together, point/ trains, measures and records one, tracking/ logs it to W&B, figures/ draw.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gradlab import explain

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent
# A wheel carries conf/ inside the package; a checkout has it at the top.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if path.is_dir())


def run(composed: "DictConfig") -> None:
    """Run a single point: Hydra calls this for each job of a launcher that is not gradlab's.

    With `measure` (and `hydra.mode: RUN`) a table is computed directly, and nothing is trained.
    """
    if composed.measure is not None:
        from gradlab.point.direct import run_measurement

        run_measurement(composed)
        return
    from gradlab.sweep import run_alone

    run_alone(composed)


def main() -> None:
    """Run gradlab from the command line; wrong input ends in one sentence and exit status 1."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(explain.usage(CONF))
        return
    if "--version" in sys.argv[1:]:
        print(f"gradlab {version('gradlab')}")
        return
    try:
        words = explain.arguments(sys.argv[1:], CONF)
        for sentence in explain.replaced(words):
            print(f"gradlab: {sentence}", file=sys.stderr)
    except ValueError as error:
        sys.exit(f"gradlab: {error}")
    import hydra  # imported late: --help need not wait for it
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gradlab.components import ConfigError
    from gradlab.config import register

    register()
    sys.argv[1:] = words
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints the error itself, and ends here
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        sys.exit(f"gradlab: {explain.sentence(error)}")


if __name__ == "__main__":
    main()
