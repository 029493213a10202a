"""Advice as data: a setting, the measured reason for it, and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A start that was tried: the cell with other recurrent weights or biases, measured.

    Attributes:
        name: of the start, as the field calls it.
        settings: the config keys that draw such a start, with their values.
        cost: in words.
        horizon: of ∂s⁽ᵗ⁾/∂s⁽ᵏ⁾ after the change, in steps.
        worst: mean log spectral norm at the lag that is needed, in nats.
        typical: mean log RMS norm there, in nats.
        cell: a copy of the cell with these weights.

    Example:
        >>> from gradlab.advice.recommendation import Trial
        >>> Trial("orthogonal", {"init": "orthogonal"}, "none", 20.0, -0.5, -1.5, cell).horizon
        20.0
    """

    name: str
    settings: Settings
    cost: str
    horizon: float
    worst: float
    typical: float
    cell: nnx.RNNCellBase = field(repr=False, compare=False)


@dataclass(frozen=True)
class Recommendation:
    """One thing to set, or why there is nothing to set.

    Attributes:
        name: of what is set, as the field calls it ("truncation window").
        settings: config keys and their values, {"tbptt.window": 23}; empty where the measurement
            supports no change, and the reason says why.
        reason: the measured reason, in a sentence or two.
        cost: what following it costs; "" where there is nothing to set.
        measured: the numbers behind it, by name.
        trials: of changed starts, the best first.

    Example:
        >>> from gradlab.advice.recommendation import Recommendation
        >>> reason = "it keeps the gradient."
        >>> window = Recommendation("truncation window", {"tbptt.window": 23}, reason)
        >>> window.value
        23
        >>> print(window)
        truncation window: tbptt.window=23
          because it keeps the gradient.
    """

    name: str
    settings: Settings
    reason: str
    cost: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    @property
    def value(self) -> Any:
        """The value of the first setting; None if there is nothing to set."""
        return next(iter(self.settings.values()), None)

    def __str__(self) -> str:
        """Return what to set, the reason and the cost as text."""
        words = ", ".join(f"{key}={as_typed(value)}" for key, value in self.settings.items())
        lines = [f"{self.name}: {words or 'nothing to set'}", f"  because {self.reason}"]
        return "\n".join([*lines, f"  cost: {self.cost}"] if self.cost else lines)


@dataclass(frozen=True)
class Advice(Mapping[str, Recommendation]):
    """Recommendations by topic: "truncation", "clipping", "reach" and "growth".

    Attributes:
        recommendations: a `Recommendation` by its topic.

    Example:
        >>> loss = lambda h, target: jnp.sum((h - target) ** 2)
        >>> advice = gradlab.advise(cell, x, loss, jnp.zeros((4, 20, 8)), window=4)
        >>> list(advice.settings)
        ['tbptt.window', 'tbptt.stride']
    """

    recommendations: Mapping[str, Recommendation]

    def __getitem__(self, topic: str) -> Recommendation:
        """Return the recommendation on a topic."""
        return self.recommendations[topic]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the topics."""
        return iter(self.recommendations)

    def __len__(self) -> int:
        """Return the number of topics."""
        return len(self.recommendations)

    def __str__(self) -> str:
        """Return all recommendations as text."""
        return "\n".join(map(str, self.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """All config keys to set, with their values."""
        return {key: x for advice in self.values() for key, x in advice.settings.items()}


def as_typed(value: Any) -> str:
    """Return a setting's value as it is typed on the command line."""
    if value is None:
        return "null"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
