"""Files of somebody's own sequences, .npz or .csv, as plain arrays by name."""

import csv
import lzma
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped
from numpy.lib.npyio import NpzFile

from gradlab.components import ConfigError

PARTS = ("inputs", "targets", "weights", "lengths")
NAMES = (*PARTS, *(f"test_{part}" for part in PARTS))
OTHER_COLUMNS = ("sequence", "step", "weight", "test")  # of a table, beside features and targets
INTEGER = re.compile(r"\s*[-+]?\d+\s*")
SUFFIXES = (".npz", ".csv")
DAMAGED = (  # what reading an archive that is damaged, encrypted or none may raise
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
)

Arrays = dict[str, Shaped[np.ndarray, "sequences *rest"]]


def read_arrays(path: Path) -> Arrays:
    """Read a file's arrays, named as in NAMES; no code in it is ever run.

    Raises:
        ConfigError: it is damaged, or has other names or columns than those allowed.
    """
    return _read_npz(path) if path.suffix == ".npz" else _read_csv(path)


def refuse(path: Path, sentence: str) -> NoReturn:
    """Raise the error of a file that cannot be used.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"task.path={path.name}: {sentence}")


def open_archive(path: Path, largest: float = math.inf) -> NpzFile:
    """Open an archive of plain arrays; a pickle in it, which could run code, is never read.

    Args:
        path: the file.
        largest: bytes that its arrays may take together.

    Raises:
        ConfigError: they take more.
        Exception: one of `DAMAGED`, here or when an array is read; `ValueError`: it is one array.
    """
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, NpzFile):
        raise ValueError("it is a single array")
    with zipfile.ZipFile(path) as members:
        size = sum(member.file_size for member in members.infolist())
    if size > largest:
        archive.close()
        refuse(path, f"its arrays take more than {largest / 2**30:g} GiB.")
    return archive


def _read_npz(path: Path) -> Arrays:
    try:
        with open_archive(path) as archive:
            _check_names(path, archive.files, NAMES, ("inputs", "targets"), "numpy.savez(path, …)")
            return {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        if isinstance(error, ConfigError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not zipfile.is_zipfile(path):
            reason = "it is no .npz archive"
        elif "pickle" in reason:  # NumPy advises to load it all the same
            reason = "it holds objects"
        refuse(
            path,
            f"it must be an archive of plain arrays, as numpy.savez(path, inputs=…, targets=…) "
            f"writes it; {reason}.",
        )


def _check_names(
    path: Path, names: Sequence[str], allowed: Sequence[str], needed: Sequence[str], remedy: str
) -> None:
    for name in names:
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1)
            likely = f" (did you mean {near[0]}?)" if near else ""
            refuse(path, f"{name} is unknown{likely}: the names are {', '.join(allowed)}.")
    if missing := [name for name in needed if name not in names]:
        refuse(path, f"{' and '.join(missing)} is missing: write it too, by {remedy}.")


def _read_csv(path: Path) -> Arrays:
    """Read a table with a row for every step of every sequence."""
    try:
        _check_lines(path)
        table = pd.read_csv(path, dtype=str, skipinitialspace=True, index_col=False)
    except (ValueError, csv.Error) as error:
        if isinstance(error, ConfigError):
            raise
        refuse(path, f"it cannot be read as a CSV file: {str(error).splitlines()[0]}.")
    features, targets = _columns(path, table)
    numbers = {
        column: _numbers(path, table[column], blank=column in targets)
        for column in map(str, table.columns)
        if column != "sequence"
    }
    rows, steps = _positions(path, table["sequence"], numbers.get("step"))
    shape = (rows.max() + 1, steps.max() + 1)
    if shape[1] == 1:
        refuse(
            path,
            "every sequence has one row, and a row is one step: write a row for each step (of a "
            "table with a column for each, by pandas.melt).",
        )
    due = ~np.any([np.isnan(numbers[c]) for c in targets], axis=0)

    def spread(values: Shaped[np.ndarray, "lines *rest"]) -> Shaped[np.ndarray, "n time *rest"]:
        grid = np.zeros((*shape, *values.shape[1:]), values.dtype)
        grid[rows, steps] = values
        return grid

    answers = np.stack([np.where(due, numbers[c], 0) for c in targets], axis=-1)
    if targets == ["target"] and all(map(INTEGER.fullmatch, table["target"].dropna())):
        answers = answers.astype(int)  # classes
    weights = numbers.get("weight", np.ones(len(table)))
    read = {
        "inputs": spread(np.stack([numbers[c] for c in features], axis=-1)),
        "targets": spread(answers),
        "weights": spread(np.where(due, weights, 0)),
        "lengths": np.bincount(rows),
    }
    return _split(path, read, rows, numbers.get("test"))


def _check_lines(path: Path) -> None:
    """Refuse what pandas would mend in silence: it fills short lines, and renames columns."""
    header: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for fields in reader:
            if fields in ([], [""]):
                continue  # blank
            if not header:
                _check_header(path, header := fields)
            if len(fields) != len(header):
                refuse(
                    path,
                    f"every line must have as many fields as the first, {len(header)}; line "
                    f"{reader.line_num} has {len(fields)}.",
                )


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse names that would make a feature of what is none, or targets of half of them."""
    own = (*OTHER_COLUMNS, "target")
    for name in names:
        plain = name.strip().lower()
        if not plain or plain.startswith("unnamed: "):  # as pandas calls one that it has read
            refuse(
                path,
                "every column must have a name, and one has none; if it is pandas' index, write "
                "it with index=False.",
            )
        meant = plain.removesuffix("s") if plain in NAMES else plain
        is_own = meant in own or meant.startswith("target_")
        if plain in NAMES or (is_own and name not in own and not name.startswith("target_")):
            likely = f" (did you mean {meant}?)" if is_own else ""
            refuse(
                path,
                f"the column {name} is unknown{likely}: they are {', '.join(own)} (or target_1, "
                "target_2, …) and features by other names.",
            )
        if names.count(name) > 1:
            refuse(path, f"the name of every column must be its own; two are {name}.")
    several = [name.removeprefix("target_") for name in names if name.startswith("target_")]
    numbered = any(map(str.isdecimal, several))
    right = {str(i + 1) for i in range(len(several))}
    if (several and "target" in names) or (numbered and set(several) != right):
        given = ", ".join(name for name in names if name.startswith("target"))
        refuse(
            path,
            "the targets must be target alone, or target_1, target_2, … without a gap; they are "
            f"{given}.",
        )


def _columns(path: Path, table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the columns that are features and those that are targets."""
    names = [str(column) for column in table.columns]
    targets = [name for name in names if name == "target" or name.startswith("target_")]
    features = [name for name in names if name not in (*OTHER_COLUMNS, *targets)]
    if "sequence" not in names or not targets or not features:
        refuse(
            path,
            "its first line must name the columns sequence, target (or target_1, target_2, …) and "
            "at least one feature, separated by commas; step, weight and test may be there; it has "
            f"{', '.join(names)}.",
        )
    if table.empty or table["sequence"].isna().any():
        refuse(path, "every row must have its sequence, and there must be rows.")
    return features, targets


def _numbers(path: Path, column: pd.Series, *, blank: bool) -> Shaped[np.ndarray, "lines"]:
    """Return a column as numbers, NaN where it may be blank and is."""
    text = column.replace({"True": "1", "False": "0"})  # as pandas writes booleans
    values = pd.to_numeric(text, errors="coerce").to_numpy(float)
    wrong = np.isnan(values) & ~(column.isna().to_numpy() & blank)
    if wrong.any():
        row = int(np.argmax(wrong))
        given = "is blank" if pd.isna(column.iloc[row]) else f"has {column.iloc[row]!r}"
        refuse(path, f"the column {column.name} must have numbers; line {row + 2} {given}.")
    return values


def _positions(
    path: Path, sequence: pd.Series, step: Shaped[np.ndarray, "lines"] | None
) -> tuple[Int[np.ndarray, "lines"], Int[np.ndarray, "lines"]]:
    """Return the sequence's number and the step, both from 0, of every row."""
    rows, names = pd.factorize(sequence)
    if step is None:
        return rows, sequence.groupby(sequence, sort=False).cumcount().to_numpy()
    firsts = pd.Series(step).groupby(rows).transform("min").to_numpy()
    ranks = pd.Series(step).groupby(rows).rank(method="first").to_numpy() - 1
    wrong = (step - firsts != ranks) | (step % 1 != 0)
    if wrong.any():
        name = names[rows[np.argmax(wrong)]]
        refuse(
            path,
            "the steps of a sequence must be whole numbers that follow each other, each once; "
            f"those of sequence {name} do not.",
        )
    return rows, ranks.astype(int)


def _split(
    path: Path,
    read: Mapping[str, Any],
    rows: Int[np.ndarray, "lines"],
    test: Shaped[np.ndarray, "lines"] | None,
) -> Arrays:
    """Return the arrays, those of sequences that the column test marks by 1 as test_…."""
    if test is None:
        return dict(read)
    held_out = np.zeros(rows.max() + 1, bool)
    held_out[rows] = test > 0
    if not np.isin(test, (0, 1)).all() or (held_out[rows] != test).any() or held_out.all():
        refuse(
            path,
            "the column test must have one number in all rows of a sequence, 0 or 1 (held out), "
            "and not 1 in all.",
        )
    parts = {name: values[~held_out] for name, values in read.items()}
    if held_out.any():
        parts |= {f"test_{name}": values[held_out] for name, values in read.items()}
    return parts
