"""Hydra's sweeper over points drawn from intervals: a Sobol sequence, or random ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override

from hydra_plugins.gradlab_sweeper import ProductSweeper

if TYPE_CHECKING:
    from jaxtyping import Float

METHODS = ("sobol", "random")


class Interval(NamedTuple):
    """A key's interval: of integers, ends included, if both are; of a logarithm if tagged "log"."""

    key: str  # as it is typed, with its +
    low: float
    high: float
    is_log: bool

    @property
    def is_whole(self) -> bool:
        """Return whether its values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def word(self, value: float) -> str:
        """Return a value as a word of the command line, of six digits if it is no integer."""
        return f"{self.key}={value:d}" if self.is_whole else f"{self.key}={value:.6g}"

    def at(self, share: float) -> float:
        """Return the value at a share of the interval, 0 ≤ share < 1, by length or by ratio."""
        low, high = self.low, self.high + self.is_whole
        value = low * (high / low) ** share if self.is_log else low + (high - low) * share
        return int(value) if self.is_whole else float(value)


def interval_of(override: Override) -> Interval | None:
    """Return the interval that a word names; None if it names none.

    Raises:
        ConfigError: it is empty, or logarithmic and not above 0.
    """
    from gradlab.components import ConfigError

    value = override.value()
    if not isinstance(value, IntervalSweep):
        return None
    low, high, is_log = value.start, value.end, "log" in value.tags
    if low is None or high is None or not low < high:
        raise ConfigError(f"{override.input_line}: an interval goes from a number to a larger one.")
    if is_log and low <= 0:
        raise ConfigError(f"{override.input_line}: a logarithmic interval begins above 0.")
    return Interval(override.get_key_element(), low, high, is_log)


def checked_count(key: str, value: Any) -> int:
    """Return an option of a sweeper that is a number of things.

    Raises:
        ConfigError: it is none.
    """
    from gradlab.components import ConfigError

    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"hydra.sweeper.{key} must be an integer from 1; got {value}.")
    return value


def design(count: int, keys: int, method: str, seed: int) -> "Float[np.ndarray, 'count keys']":
    """Return points of the unit cube that fill it: a scrambled Sobol sequence, or random ones.

    Args:
        count: number of points.
        keys: number of dimensions.
        method: sobol (Owen's scrambling, in Matoušek's form, of Sobol 1967), or random.
        seed: of the scrambling or of the draws.

    Returns:
        Shares in [0, 1). A longer design begins with the points of a shorter one of its seed.
    """
    if method == "random":
        return np.random.default_rng(seed).random((count, keys))
    from scipy.stats import qmc

    power = int(np.ceil(np.log2(count)))  # a whole power of 2 is what the sequence is balanced for
    return qmc.Sobol(keys, rng=np.random.default_rng(seed)).random_base2(power)[:count]


class SobolSweeper(ProductSweeper):
    """Draws points from the intervals; crosses them with the values that other keys are given."""

    def __init__(
        self,
        points: int,
        method: str,
        seed: int,
        params: dict[str, str] | None = None,
        skip: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Take the options of conf/hydra/sweeper/sobol.yaml."""
        super().__init__(None, params, skip)
        self._points, self._method, self._seed = points, method, seed

    def split_arguments(  # type: ignore[override]  # Hydra's is static
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Return the points, in one batch: every combination of values at every drawn point.

        Raises:
            ConfigError: no key has an interval, or an option of the sweeper is wrong.
        """
        from gradlab.components import ConfigError

        found = [(x, interval_of(x)) for x in overrides]
        intervals = [interval for _, interval in found if interval]
        rest = [x for x, interval in found if not interval]
        if not intervals:
            raise ConfigError(
                "hydra/sweeper=sobol draws points from intervals: give a key one, such as "
                "'init.gain=interval(0.5,2)' or 'optim.learning_rate=tag(log,interval(1e-4,1e-1))'."
            )
        if self._method not in METHODS:
            raise ConfigError(
                f"hydra.sweeper.method must be one of {', '.join(METHODS)}; got {self._method}."
            )
        count = checked_count("points", self._points)
        drawn = [
            [x.word(x.at(share)) for x, share in zip(intervals, row, strict=True)]
            for row in design(count, len(intervals), self._method, self._seed)
        ]
        batches = super().split_arguments(rest, max_batch_size)
        return [[[*point, *words] for point in batch for words in drawn] for batch in batches]
