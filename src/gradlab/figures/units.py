"""The unit of log norms in figures, pages and tables: decades (powers of ten) or nats.

Records, metrics and W&B hold nats; only what is shown is converted.
"""

from typing import Any, Literal

import numpy as np

Unit = Literal["decades", "nats"]
DEFAULT: Unit = "decades"
DECADE = float(np.log(10))  # nats
NATS_IN: dict[str, float] = {"decades": DECADE, "nats": 1.0}


def from_nats(nats: Any, unit: Unit) -> Any:
    """Return log norms or rates, given in nats, in a unit: 2.303 nats are 1 decade."""
    return nats / NATS_IN[unit]
