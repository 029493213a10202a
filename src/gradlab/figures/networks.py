"""Settings that vary together, as those of whole networks do, named as one."""

from collections.abc import Collection, Sequence

import pandas as pd

from gradlab.figures.labels import point_label
from gradlab.figures.levels import where_flag
from gradlab.figures.selection import FIRST_OF_SECTION, levels_of

NETWORK = "network.name"
LENGTH = "task.length"


def with_networks(runs: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Replace keys that vary together by one column that names their combinations.

    `+network=irnn,lstm_chrono` sets model, initialiser and biases at once: panels for each of their
    levels would mostly be blank. What a network sets may depend on the sequence's length, so of
    several lengths the longest is kept.

    Args:
        runs: from `selection.comparable`.
        keys: that vary, without the seed.

    Returns:
        The runs and the keys; of networks, with a column NETWORK ("RNN, identity") first.
    """
    if not (tied := _tied(runs, keys)):
        return runs, list(keys)
    if LENGTH in keys and LENGTH not in tied:
        runs = runs[runs[LENGTH] == levels_of(runs, LENGTH)[-1]]
        return with_networks(runs, [key for key in keys if len(levels_of(runs, key)) > 1])
    crossed = [key for key in keys if key not in tied and _is_crossed(runs, keys, key)]
    naming = _naming(runs, [key for key in keys if key not in crossed])
    names = [
        point_label(run, [key for key in naming if pd.notna(run[key]) or _is_setting(runs, key)])
        for _, run in runs.iterrows()
    ]
    return runs.assign(**{NETWORK: names}), [NETWORK, *crossed]


def left_out(runs: pd.DataFrame, keys: Sequence[str], shown: pd.DataFrame) -> list[str]:
    """Return the sentence that names the networks that a figure leaves out, and what shows one.

    Args:
        runs, keys: as in `with_networks`.
        shown: those of its runs that the figure shows.
    """
    if NETWORK not in shown:
        return []
    runs, keys_left = with_networks(runs, keys)
    others = runs[~runs[NETWORK].isin(shown[NETWORK])].drop_duplicates(NETWORK)
    if others.empty:
        return []
    naming = _naming(runs, [key for key in keys if key not in keys_left])
    first = others.iloc[0]
    flags = " ".join(where_flag(key, levels_of(runs, key), [first[key]]) for key in naming)
    return [f"Networks left out: {'; '.join(others[NETWORK])}; the first: --where {flags}."]


def without_networks(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Return the keys that do not vary together with others."""
    return [key for key in with_networks(runs, keys)[1] if key != NETWORK]


def _tied(runs: pd.DataFrame, keys: Sequence[str]) -> set[str]:
    """Return the keys of parts that determine another key, and those that they determine."""
    pairs = [
        {part, key}
        for part in keys
        for key in keys
        if part != key and _is_part(runs, part) and _determine(runs, [part], key)
    ]
    return set().union(*pairs)


def _naming(runs: pd.DataFrame, network: Sequence[str]) -> list[str]:
    """Return the keys of a network that tell networks apart, in the order of their names."""
    naming: list[str] = []
    for key in sorted(network, key=lambda key: _rank(runs, key)):
        if _is_setting(runs, key) or not _determine(runs, naming, key):
            naming.append(key)
    return naming


def _is_part(runs: pd.DataFrame, key: str) -> bool:
    """Return whether a key names a part, or is a number that only some parts have."""
    of_some = key not in FIRST_OF_SECTION and bool(runs[key].isna().any())
    return of_some or not pd.api.types.is_numeric_dtype(runs[key])


def _determine(runs: pd.DataFrame, keys: Collection[str], other: str) -> bool:
    """Return whether points with the same levels of some keys have the same level of another."""
    combinations = runs[[*keys, other]].drop_duplicates()
    return bool(keys) and len(combinations) == len(combinations.drop_duplicates([*keys]))


def _is_crossed(runs: pd.DataFrame, keys: Sequence[str], key: str) -> bool:
    """Return whether each combination of the other keys has all levels of a key."""
    others = [other for other in keys if other != key]
    combinations = len(runs[others].drop_duplicates()) * len(levels_of(runs, key))
    return combinations == len(runs[[*keys]].drop_duplicates())


def _rank(runs: pd.DataFrame, key: str) -> tuple[bool, bool, bool]:
    """Return the place of a key in a network's name: model and gain, parts, options, numbers."""
    is_number = pd.api.types.is_numeric_dtype(runs[key])
    return not _is_setting(runs, key), is_number, not key.endswith("_target_")


def _is_setting(runs: pd.DataFrame, key: str) -> bool:
    """Return whether a key is always in a network's name, as the model and a gain that varies."""
    return key in FIRST_OF_SECTION and len(set(runs[key].dropna())) > 1
