"""Maps as text in a page: 16-bit codes, compressed."""

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float

LEAST = 1e-3  # of the shown unit: the page shows no finer differences
LAST = 65534  # code of the greatest value; 0 is −inf, 1 the least value
MISSING = LAST + 1  # code of NaN


def pack(maps: Float[np.ndarray, "maps pairs"]) -> dict[str, Any]:
    """Return maps as codes of 16 bits, each map with its own range, ready for JSON.

    Neighbours differ little, so what is compressed is the difference of each code from the one
    before it (mod 65536), first the low bytes of all and then the high ones.

    Returns:
        `low` and `step` of each map, whose values are `low`, `low + step`, …, and `codes`.
    """
    lows, steps = [], []
    codes = np.zeros(maps.shape, "<u2")
    for values, row in zip(maps, codes, strict=True):
        finite = np.isfinite(values)
        low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
        step = max((high - low) / (LAST - 1), LEAST)
        row[finite] = 1 + np.round((values[finite] - low) / step)
        row[~finite & ~np.isneginf(values)] = MISSING
        lows.append(float(low))
        steps.append(float(step))
    differences = np.diff(codes, axis=1, prepend=np.zeros((len(codes), 1), "<u2"))
    planes = differences.reshape(-1, 1).view(np.uint8).T
    return {"low": lows, "step": steps, "codes": as_text(zlib.compress(planes.tobytes(), 9))}


def as_text(data: bytes) -> str:
    """Return bytes as text (base64)."""
    return base64.b64encode(data).decode()
