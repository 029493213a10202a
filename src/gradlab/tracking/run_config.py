"""The config of a W&B run: the point's own, and beside it its place and its setting.

W&B shows a column for every key. So the sections that say nothing of a run are one key, as JSON.
"""

import json
from collections.abc import Mapping
from typing import Any

PATH_KEY = "path"  # NAME/DATE/POINT, the point's folder below runs/
SWEEP_KEY = "sweep_id"  # tells sweeps of one NAME/DATE apart
SETTING_KEY = "setting"  # what the sweep varies, without the seed: runs group by it
PACKED_KEY = "bookkeeping"  # the sections PACKED
CHOSEN_KEY = "chosen_by_agent"  # the names of what an agent of W&B's has chosen
PACKED = ("wandb", "sweep")
BOOKKEEPING = ("name", *PACKED)  # sections of a config that change no number


def run_config(
    config: Mapping[str, Any],
    path: str,
    sweep_id: str,
    setting: str,
    chosen: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the config of a point's run, from which `point_config` gives back the point's.

    Args:
        config: the point's.
        path, sweep_id, setting: the values of PATH_KEY, SWEEP_KEY ("": the sweep has no id) and
            SETTING_KEY.
        chosen: what an agent has chosen, {"init.gain": 0.5, "model": "lstm"}: its search wants it
            under just these names, so that a section of such a name is packed, too.
    """
    hidden = {*PACKED, *(chosen or {})}
    shown = {key: section for key, section in config.items() if key not in hidden}
    packed = json.dumps({key: x for key, x in config.items() if key in hidden})
    added: dict[str, Any] = {PATH_KEY: path, SETTING_KEY: setting, PACKED_KEY: packed}
    added |= {SWEEP_KEY: sweep_id} if sweep_id else {}
    return shown | added | ({**chosen, CHOSEN_KEY: [*chosen]} if chosen else {})


def point_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point's config from that of its run.

    Raises:
        ValueError: the packed sections are not as they were written.
    """
    chosen = config.get(CHOSEN_KEY, [])
    added = (PATH_KEY, SWEEP_KEY, SETTING_KEY, PACKED_KEY, CHOSEN_KEY, *chosen)
    own = {key: x for key, x in config.items() if key not in added and not key.startswith("_")}
    packed = json.loads(config.get(PACKED_KEY, "{}"))  # earlier versions packed none
    if not isinstance(packed, dict) or not set(packed) <= {*PACKED, *chosen}:
        raise ValueError(f"its {PACKED_KEY} is not as it was written")
    return own | packed


def is_point(config: Mapping[str, Any]) -> bool:
    """Return whether a run's config is that of a point which gradlab logged."""
    is_earlier = isinstance(config.get("wandb"), Mapping)
    return PATH_KEY in config and (is_earlier or isinstance(config.get(PACKED_KEY), str))
