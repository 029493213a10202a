"""Every figure that `gradlab figure NAME` draws: what it shows, what draws it, its own options.

Functions are named by their dotted paths, as conf/ names parts. So are figures of one's own, which
need no entry here: `gradlab figure my_module.my_figure`.
"""

import argparse
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from gradlab.figures import bands, moments, outcome
from gradlab.figures.explorer import PAGE_CELLS, PAGE_STEPS
from gradlab.figures.levels import split_levels
from gradlab.figures.of_runs.training import METRICS
from gradlab.figures.places import FORMATS

CHOSEN = "from what varies"


class Where(argparse.Action):
    """Collects KEY=LEVEL,LEVEL … as a dictionary of lists."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Add the words to what is there."""
        where = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, equals, levels = word.partition("=")
            if not (key and equals and levels):
                raise argparse.ArgumentError(self, f"takes KEY=LEVEL,LEVEL; got {word!r}")
            try:
                where[key] = [*where.get(key, ()), *split_levels(levels)]
            except ValueError as error:
                raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, where)


def moment(text: str) -> moments.Step:
    """Parse a moment of training, as the type of an argument."""
    step: Any = int(text) if text.isdecimal() else text
    try:
        return moments.check_step(step)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("step ").rstrip(".")) from None


def positive(text: str) -> float:
    """Parse a positive number, as the type of an argument."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0; got {text}")
    return number


def count(text: str) -> int:
    """Parse an integer of at least 2, as the type of an argument."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2; got {text}")
    return number


class Option(NamedTuple):
    """An option of a figure: how it is typed, and the settings of `argparse` for it.

    Its `dest`, by default its name, is the argument of the figure's function that it sets.
    """

    flag: str
    settings: Mapping[str, Any]


class Entry(NamedTuple):
    """A figure.

    Attributes:
        summary: its line in the list.
        function: the dotted path of what draws it, (runs, …) -> Drawn; of a page: its HTML.
        options: its own.
        needs: what the runs must have measured or swept, for --help.
        nats: columns of its table that are in nats, that which tells whether they are there first.
        has_runs: whether it draws runs; else its function takes its options alone.
        formats: the suffixes of its file, the default first.
    """

    summary: str
    function: str
    options: tuple[Option, ...] = ()
    needs: str = ""
    nats: tuple[str, ...] = ()
    has_runs: bool = True
    formats: tuple[str, ...] = FORMATS


def _key(flag: str, what: str) -> Option:
    return Option(flag, {"metavar": "KEY", "help": f"config key by which {what} ({CHOSEN})"})


WHERE = Option(
    "--where",
    {
        "nargs": "+",
        "action": Where,
        "metavar": "KEY=LEVEL,…",
        "help": "show these points only, as init.gain=1,2 clip.threshold=none",
    },
)
HUE, COL, ROW = (
    _key("--hue", "lines differ"),
    _key("--col", "columns of panels differ"),
    _key("--row", "rows of panels differ"),
)
STEP = Option(
    "--step",
    {
        "type": moment,
        "default": moments.DEFAULT,
        "metavar": "{first,last,ends,all,N}",
        "help": "the measurement before training, the last one, both (ends), all, or that after N "
        "updates (%(default)s)",
    },
)
BAND = Option(
    "--band",
    {
        "choices": get_args(bands.Band),
        "default": bands.DEFAULT,
        "help": "over seeds: 95 %% bootstrap interval of the mean, standard deviation, quartiles, "
        "least to greatest, or none (%(default)s)",
    },
)
LINES = (WHERE, HUE, COL, ROW, STEP, BAND)
MOMENT = Option(
    "--step",
    {
        "type": moment,
        "default": "last",
        "metavar": "{first,last,N}",
        "help": "the measurement before training, the last one, or that after N updates "
        "(%(default)s)",
    },
)
SUCCESS = (
    Option(
        "--success-error",
        {
            "dest": "error",
            "type": float,
            "default": outcome.MAX_ERROR,
            "help": "success is an eval/error_rate below (%(default)s), where it is logged",
        },
    ),
    Option(
        "--success-accuracy",
        {
            "dest": "accuracy",
            "type": float,
            "default": outcome.MIN_ACCURACY,
            "help": "else an eval/accuracy above (%(default)s)",
        },
    ),
)
START = {"nargs": 2, "type": float, "metavar": ("W", "B"), "default": (5.0, -2.45)}

FIGURES: Mapping[str, Entry] = {
    "overview": Entry(
        "Maps before and after training, decay by lag, as at a sweep's end",
        "gradlab.figures.overview_figure",
        (WHERE, BAND),
        nats=("log_norm", "relative", "theory"),
    ),
    "heatmap": Entry(
        "Log norms of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ for every pair (t, k)",
        "gradlab.figures.heatmap_figure",
        (WHERE, COL, ROW, STEP),
        nats=("log_norm",),
    ),
    "decay": Entry(
        "Mean norm of ∂h⁽ᵗ⁾/∂h⁽ᵏ⁾ against t − k, beside theory",
        "gradlab.figures.decay_figure",
        LINES,
        nats=("log_norm", "relative", "theory"),
    ),
    "phase": Entry(
        "Decay rate, success, … over gain × length, or two other axes",
        "gradlab.figures.phase_figure",
        (
            Option("--value", {"choices": outcome.OUTCOMES, "default": "decay_rate"}),
            _key("--x", "columns of cells differ"),
            _key("--y", "rows of cells differ"),
            *(WHERE, COL, ROW, MOMENT),
            *SUCCESS,
        ),
        nats=("decay_rate", "low", "high"),
    ),
    "clipping": Entry(
        "Success, loss and clip fraction by threshold and learning rate",
        "gradlab.figures.clipping_figure",
        (WHERE, HUE, COL, ROW, BAND, *SUCCESS),
        needs="a sweep over clip.threshold",
    ),
    "adjoint": Entry(
        "Norm of ∂L/∂h⁽ᵏ⁾ at every step k",
        "gradlab.figures.adjoint_figure",
        LINES,
        needs="probe=[spectral,adjoint]",
        nats=("log_norm",),
    ),
    "contributions": Entry(
        "Gradient by lag, and what truncation loses",
        "gradlab.figures.contributions_figure",
        LINES,
        needs="probe=[spectral,contribution]",
    ),
    "lyapunov": Entry(
        "Lyapunov spectrum of every run",
        "gradlab.figures.lyapunov_figure",
        LINES,
        needs="probe=[spectral,lyapunov]",
        nats=("exponent", "standard_error"),
    ),
    "gates": Entry(
        "Gates and states of the cells over time",
        "gradlab.figures.gates_figure",
        LINES,
        needs="probe=[spectral,statistics]",
    ),
    "singular_values": Entry(
        "Singular values of ∂h⁽ᵀ⁾/∂h⁽ᵏ⁾",
        "gradlab.figures.singular_values_figure",
        LINES,
        needs="probe=[spectral,singular_values]",
        nats=("log_value",),
    ),
    "training": Entry(
        "Loss, accuracy and gradient norm over training",
        "gradlab.figures.training_figure",
        (
            *(WHERE, HUE, COL, ROW, BAND),
            Option("--metric", {"nargs": "+", "choices": METRICS, "help": "these only"}),
        ),
    ),
    "views": Entry(
        "Decay, Lyapunov spectrum and theory of one run",
        "gradlab.figures.views_figure",
        (Option("--point", {"type": int, "help": "which of several runs, from 0"}),),
        needs="probe=[spectral,lyapunov,theory]",
        nats=("rate", "residual"),
    ),
    "error_surface": Entry(
        "Error surface of one unit, with clipped and unclipped descent",
        "gradlab.studies.error_surface.draw_error_surface",
        (
            Option("--start", START),
            Option("--learning-rate", {"type": positive, "default": 0.01}),
            Option("--threshold", {"type": positive, "default": 1.0}),
            Option("--updates", {"type": int, "default": 3000}),
        ),
        has_runs=False,
    ),
    "explore": Entry(
        "A sweep as an interactive page of its maps over training",
        "gradlab.figures.explorer.explorer",
        (
            Option("--cells", {"type": count, "default": PAGE_CELLS, "help": "along a map's axis"}),
            Option("--steps", {"type": count, "default": PAGE_STEPS, "help": "of training"}),
        ),
        formats=("html", "htm"),
    ),
}


def entry_of(name: str) -> Entry:
    """Return the entry of a figure, or one for a function of somebody's own by its dotted path.

    Raises:
        ValueError: it is neither.
    """
    if name in FIGURES:
        return FIGURES[name]
    if "." in name:
        return Entry(f"The figure that {name} draws", name)
    near = get_close_matches(name, FIGURES, n=1)
    likely = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"a figure is one of {', '.join(FIGURES)}, or module.function of your own; got {name!r}."
        f"{likely}"
    )


def overview() -> str:
    """Return the list of the figures, a line each, and how one is drawn."""
    width = max(map(len, FIGURES))
    return "\n".join(
        [
            "gradlab figure: a sweep, drawn from its folder or from W&B\n",
            "  python -m gradlab figure NAME --runs FOLDER             of a sweep or a point",
            "  python -m gradlab figure NAME --wandb ENTITY/PROJECT    or a folder of offline runs",
            "  python -m gradlab figure NAME --help                    its options",
            "  python -m gradlab figure my_module.my_figure --runs …   your function of the runs",
            "\nfigures",
            *(f"  {name:{width}}  {entry.summary}" for name, entry in FIGURES.items()),
        ]
    )
