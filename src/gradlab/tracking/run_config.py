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
PACKED = ("wandb", "sweep")
BOOKKEEPING = ("name", *PACKED)  # sections of a config that change no number


def run_config(config: Mapping[str, Any], path: str, sweep_id: str, setting: str) -> dict[str, Any]:
    """Return the config of a point's run, from which `point_config` gives back the point's.

    Args:
        config: the point's.
        path, sweep_id, setting: the values of PATH_KEY, SWEEP_KEY ("": the sweep has no id) and
            SETTING_KEY.
    """
    shown = {key: section for key, section in config.items() if key not in PACKED}
    packed = json.dumps({key: config[key] for key in PACKED if key in config})
    added = {PATH_KEY: path, SETTING_KEY: setting, PACKED_KEY: packed}
    return shown | added | ({SWEEP_KEY: sweep_id} if sweep_id else {})


def point_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point's config from that of its run.

    Raises:
        ValueError: the packed sections are not as they were written.
    """
    added = (PATH_KEY, SWEEP_KEY, SETTING_KEY, PACKED_KEY)
    own = {key: x for key, x in config.items() if key not in added and not key.startswith("_")}
    packed = json.loads(config.get(PACKED_KEY, "{}"))  # earlier versions packed none
    if not isinstance(packed, dict) or not set(packed) <= set(PACKED):
        raise ValueError(f"its {PACKED_KEY} is not as it was written")
    return own | packed


def is_point(config: Mapping[str, Any]) -> bool:
    """Return whether a run's config is that of a point which gradlab logged."""
    is_earlier = isinstance(config.get("wandb"), Mapping)
    return PATH_KEY in config and (is_earlier or isinstance(config.get(PACKED_KEY), str))
