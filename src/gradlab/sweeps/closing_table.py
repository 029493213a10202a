"""The table at the end of a sweep: a row a setting, its seeds averaged, or a row a point."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, log10
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradlab import decay
from gradlab.figures import labels
from gradlab.figures.bands import FEW
from gradlab.figures.settings import means_over_seeds, settings_of
from gradlab.figures.units import from_nats
from gradlab.printable import printable
from gradlab.sentences import MINUS, three_digits, with_deviation

RATE, HORIZON, RATIO, LOSS = ("rate", "horizon", "loss ÷ baseline", "loss")
ACCURACY, SOLVED = ("accuracy", "solved")
HEADINGS = {
    RATE: "decay rate\ndecades/step",
    HORIZON: "horizon\nsteps",
    RATIO: "loss ÷\nbaseline",
    ACCURACY: "accuracy\n%",
}
COLOURS = {
    "vanishing": "blue",
    "stable": "green",
    "exploding": "red",
    "diverged": "magenta",
    "failed": "red",
    "pruned": "yellow",
}
ENDED = ("done", "diverged")  # the states of points that have a verdict
GAP = 2  # characters between columns


def results(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of the table, point by point, in its units.

    Args:
        runs: from `load_runs`.

    Returns:
        Columns RATE (decades per step), HORIZON (steps), RATIO (held-out loss over the task's
        baseline), LOSS (held-out loss that has no such ratio, as the baseline is 0 or unknown),
        ACCURACY (percent) and SOLVED (1 or 0); NaN where the runs have none.
    """
    names = ("jacobian/decay_rate", "jacobian/horizon", "eval/accuracy", "success/solved")
    rate, horizon, accuracy, solved = (column(runs, name) for name in names)
    baseline = column(runs, "eval/baseline").replace(0, np.nan)  # 0: all answers are the same
    loss = column(runs, "eval/loss")
    return pd.DataFrame(
        {
            RATE: from_nats(rate, "decades"),
            HORIZON: horizon,
            RATIO: loss / baseline,
            LOSS: loss.mask(baseline.notna()),
            ACCURACY: 100 * accuracy,
            SOLVED: solved,
        }
    )


def column(runs: pd.DataFrame, name: str) -> pd.Series:
    """Return a column of numbers; NaN where the runs have none."""
    return pd.to_numeric(runs.get(name, pd.Series(np.nan, runs.index)), errors="coerce")


def states(runs: pd.DataFrame) -> pd.Series:
    """Return each point's verdict; of one that has not come to its end, its status."""
    verdicts = runs.get("verdict", runs["status"]).astype(str).map(printable)
    return verdicts.where(runs["status"].isin(ENDED), runs["status"])


class Fitted(NamedTuple):
    """A table for a screen, and those of its `columns` that the screen has room for."""

    content: RenderableType
    columns: list[str]


@dataclass(frozen=True)
class ClosingTable:
    """The rows of the table, and their text.

    Attributes:
        runs: the points of all rows.
        keys: the config keys that tell the rows apart.
        folder: the sweep's.
        rows: the points of each row.
        averages: whether a row is a setting.
        remarks: what the curves of points do that their verdict and horizon do not say ("after a
            rise"), by the points' labels in the runs.
    """

    runs: pd.DataFrame
    keys: list[str]
    folder: Path
    rows: list[pd.DataFrame]
    averages: bool
    remarks: Mapping[Hashable, str]

    @cached_property
    def columns(self) -> list[str]:
        """Return the numbers that at least one row has; SOLVED only where a seed has solved it."""
        shown = results(self.runs)
        if not self.averages or not (shown[SOLVED] > 0).any():
            shown = shown.drop(columns=SOLVED)
        return list(shown.columns[shown.notna().any()])

    @cached_property
    def _named(self) -> list[str]:
        """Return the heading of the rows' names; none for settings that have as many seeds."""
        if not self.averages:
            return ["point"]
        return ["seeds"] if len({*map(len, self.rows)}) > 1 or not self.keys else []

    @cached_property
    def cells(self) -> list[list[Text]]:
        """Return the text of each row: its verdicts, then its numbers."""
        return [self._cells(row) for row in self.rows]

    def fitted(self, width: int) -> "Fitted":
        """Return the table for a screen.

        Keys that would make it too wide name blocks of rows; then its last columns are left out.

        Args:
            width: of the screen, characters.
        """
        names_first = sorted(self.keys, key=lambda key: is_numeric_dtype(self.runs[key]))
        for number in range(len(self.keys) + 1):
            above = names_first[:number]
            beside = [key for key in self.keys if key not in above]
            headings = self._headings(beside)
            lines = [self._line(*row, beside) for row in zip(self.rows, self.cells, strict=True)]
            widths = [
                max(cell_len(part) for text in column for part in str(text).split("\n"))
                for column in zip(headings, *lines, strict=True)
            ]
            if _width(widths) <= width:
                break
        columns = list(self.columns)
        while columns and _width(widths) > width:
            columns.pop()
            widths.pop()
        headings, lines = headings[: len(widths)], [line[: len(widths)] for line in lines]
        names = [printable(labels.point_label(row.iloc[0], above)) for row in self.rows]
        parts: list[RenderableType] = [_table(headings, widths, [], heads=True)]
        for name in dict.fromkeys(names):
            parts += [Text(name, "bold")] if above else []
            own = [line for line, of in zip(lines, names, strict=True) if of == name]
            parts.append(_table(headings, widths, own))
        return Fitted(Group(*parts), columns)

    def _cells(self, runs: pd.DataFrame) -> list[Text]:
        # A seed that diverged or failed is counted among the verdicts, and averaged nowhere.
        shown = ("done",) if self.averages else ENDED
        averaged = runs[runs["status"].isin(shown)]
        numbers, cells = results(averaged), [self._verdicts(runs)]
        if (zeros := column(averaged, "jacobian/zero_share").mean()) > 0:
            cells[0].append(f"\n{max(zeros, 0.001):.1%} zeros", "dim")
        for name in self.columns:
            text = mean_and_deviation(numbers[name], self._decimals(name))
            if name == SOLVED and numbers[SOLVED].notna().any():
                text = f"{(numbers[SOLVED] > 0).sum()} of {len(runs)}"
            cells.append(Text(text))
        return cells

    def _verdicts(self, runs: pd.DataFrame) -> Text:
        total, remarks = len(runs), [self.remarks[x] for x in runs.index if x in self.remarks]
        lines = [
            Text(_counted(state, count, total), COLOURS.get(state, ""))
            for state, count in Counter(states(runs)).most_common()
        ]
        lines += [Text(_counted(x, n, total), "dim") for x, n in Counter(remarks).most_common()]
        return Text("\n").join(lines)

    def _decimals(self, name: str) -> int | None:
        """Return the decimal places of a number: of a rate, two digits of 1 decade over T steps.

        None: three digits, of a number whose size is not known before.
        """
        if name != RATE:
            return {HORIZON: 1, RATIO: 2, ACCURACY: 1}.get(name)
        longest = column(self.runs, "task.length").max()
        return 3 if pd.isna(longest) else max(2, ceil(log10(longest))) + 1

    def _headings(self, keys: Sequence[str]) -> list[str]:
        of_keys = [printable(labels.key_label(key)).replace(" ", "\n") for key in keys]
        named = [*of_keys, *self._named] if self.averages else [*self._named, *of_keys]
        return [*named, "verdict", *(HEADINGS.get(name, name) for name in self.columns)]

    def _line(self, row: pd.DataFrame, cells: Sequence[Text], keys: Sequence[str]) -> list[Text]:
        run, count = row.iloc[0], str(len(row))
        name = [Text(count if self.averages else self._folder(run))] * len(self._named)
        levels = [Text(printable(labels.value_label(key, run[key]))) for key in keys]
        return [*levels, *name, *cells] if self.averages else [*name, *levels, *cells]

    def point(self, label: Hashable) -> str:
        """Return how a point is called: its folder; beside settings, after what it is."""
        run = self.runs.loc[[label]].iloc[0]
        if not self.averages:
            return self._folder(run)
        setting = printable(labels.point_label(run, [*self.keys, "seed"]))
        return f"{setting} (point {self._folder(run)})"

    def _folder(self, run: pd.Series) -> str:
        return printable(Path(run["path"]).relative_to(self.folder).as_posix())


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _table(
    headings: Sequence[str],
    widths: Sequence[int],
    lines: Sequence[Sequence[Text]],
    *,
    heads: bool = False,
) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=heads)
    verdict = headings.index("verdict")
    for i, (heading, width) in enumerate(zip(headings, widths, strict=True)):
        is_number = i > verdict or heading in ("point", "seeds")
        table.add_column(heading, justify="right" if is_number else "left", min_width=width)
    for line in lines:
        table.add_row(*line)
    return table


def closing_table(
    runs: pd.DataFrame, folder: Path, rows: str, remarks: Mapping[Hashable, str]
) -> ClosingTable:
    """Return the table of a sweep's points: a row a setting if seeds are swept, else a row a point.

    Args:
        runs: from `selection.comparable`.
        folder: the sweep's.
        rows: "settings", or "points": a row a point in any case.
        remarks: of points, by their label in the runs.
    """
    keys, grouped = settings_of(runs)
    if rows == "settings" and "seed" in keys and len(grouped) < len(runs):
        return ClosingTable(runs, keys[:-1], folder, grouped, averages=True, remarks=remarks)
    points = [runs.iloc[[i]] for i in range(len(runs))]
    return ClosingTable(runs, keys, folder, points, averages=False, remarks=remarks)


def mean_and_deviation(values: pd.Series, decimals: int | None) -> str:
    """Return "mean±standard deviation" of the finite values, and how many others there are.

    The deviation is that of a sample (n − 1), and says how many digits are written. Below it stands
    the interval of the mean, of at least `FEW` values that differ. Where some are missing (NaN),
    the others have no mean.

    Args:
        values: of a column.
        decimals: places of a single value, which has no deviation; None: three digits.

    Example:
        >>> import pandas as pd
        >>> from gradlab.sweeps.closing_table import mean_and_deviation
        >>> print(mean_and_deviation(pd.Series([12.0, 14.0, np.inf]), 1))
        13.0±1.4
        1 of 3 inf
    """
    known = values.dropna()
    if 0 < len(known) < len(values):
        return _counted("missing", len(values) - len(known), len(values))
    finite = known[np.isfinite(known)]
    sign = "+" if values.name == RATE else ""
    lines = []
    if len(finite) == 1:
        lines.append(_single(finite.iloc[0], decimals, sign))
    elif len(finite):
        (mean,), (low,), (high,), _ = means_over_seeds(known.to_numpy()[None])
        lines.append("".join(with_deviation(mean, finite.std(), sign)))
        ends = [with_deviation(end, (high - low) / 2, sign)[0] for end in (low, high)]
        lines += ["..".join(ends)] if len(finite) >= FEW and ends[0] != ends[1] else []
    for value, count in Counter(known[~np.isfinite(known)]).items():
        lines.append(_counted(str(value), count, len(known)))
    return "\n".join(lines).replace(MINUS, "-") or "–"


def _single(value: float, decimals: int | None, sign: str) -> str:
    if decimals is None or abs(value) >= 1e5:
        return three_digits(value, sign)
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"  # + 0.0: no "-0.00"


def _counted(word: str, count: int, total: int) -> str:
    return word if count == total else f"{count} of {total} {word}"


def remark(profile: np.ndarray, verdict: str) -> str:
    """Return what a curve does that its verdict and its horizon do not say; "" if nothing.

    A decay rate is the slope of a line through the whole curve, and a horizon the first lag at 1/e.
    A vanishing curve without a horizon rises first; an exploding one with a horizon falls before or
    after; a stable one may have changed more than tenfold within the first half of the lags, in
    which a line of its slope changes by less than half of that.

    Args:
        profile: mean log norms by lag, nats; not all −inf.
        verdict: on them.
    """
    changes = profile - profile[np.argmax(profile > -np.inf)]
    reach = decay.horizon(profile)
    if verdict == "vanishing" and reach == inf:
        return "after a rise"
    if verdict == "exploding" and reach < inf:
        early = np.nanargmin(changes) < np.nanargmax(changes)
        return "after a fall" if early else "before a fall"
    half = changes[: len(changes) // 2 + 1]
    if verdict == "stable" and np.nanmax(np.abs(half)) > decay.TENFOLD:
        return "after a rise" if np.nanmax(half) > decay.TENFOLD else "after a fall"
    return ""
