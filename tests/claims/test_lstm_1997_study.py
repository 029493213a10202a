"""The study of the LSTM of 1997: its table and figure from made-up runs, and its settings."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Compose

from gradlab.claims.study import load_study
from gradlab.claims.verdicts import judge
from gradlab.studies.lstm_1997 import PRINTED, figure, networks

ROOT = Path(__file__).parents[2]
COUNTS = {"6a": 20}  # networks of a row; 10 else


def as_printed(factor: float = 1.0, solved: bool = True) -> pd.DataFrame:
    """Return a table whose means are a multiple of those of the paper."""
    spread = np.tile([0.8, 0.9, 1.0, 1.1, 1.2], 4)
    rows = []
    for row, printed in PRINTED.items():
        for seed in range(COUNTS.get(row, 10)):
            one = {
                "hs97": row,
                "seed": seed,
                "solved": solved,
                "sequences": factor * printed.sequences * spread[seed],
                "wrong": printed.wrong,
                "squared_error": {"5_n140": 0.0223, "5_n13": 0.0139}.get(row, 1e-4),
                "absolute_error": {"5_n140": 0.0223, "5_n13": 0.0125}.get(row, 0.009),
            }
            rows.append(one)
    return pd.DataFrame(rows)


def outcomes(table: pd.DataFrame) -> dict[str, str]:
    study = load_study(ROOT, "lstm_1997")
    return {claim.id: judge(claim, table).outcome for claim in study.claims}


def test_the_papers_own_numbers_are_reproduced() -> None:
    found = outcomes(as_printed())
    assert set(found.values()) == {"reproduced", "observed"}
    assert sum(outcome == "reproduced" for outcome in found.values()) == 37


def test_other_numbers_are_not() -> None:
    slow = outcomes(as_printed(factor=2.6, solved=False))
    assert slow["P1.6a.sequences"] == slow["P1.6a.solved"] == "not reproduced"
    assert slow["P1.5.n13.sequences"] == "not reproduced"
    between = outcomes(as_printed(factor=2.0))
    assert between["P1.4.T100.sequences"] == "inconclusive"
    wrong = as_printed().assign(wrong=300)
    assert outcomes(wrong)["P1.5.n140.wrong"] == outcomes(wrong)["P1.6b.most"] == "not reproduced"


def test_the_table_counts_all_sequences_of_a_network_that_never_learned() -> None:
    runs = pd.DataFrame(
        {
            "stop/sequences": [120.0, np.nan],
            "train/step": [60, 200],
            "train.batch_size": [2, 2],
            "eval/error_rate": [10 / 2560, 0.5],
            "eval/loss": [0.1, 0.2],
            "eval/absolute_error": [0.3, 0.4],
        }
    )
    table = networks(runs)
    assert table["solved"].tolist() == [True, False]
    assert table["sequences"].tolist() == [120, 400]
    assert table["wrong"].tolist() == [10, 1280]
    never = networks(runs.drop(columns="stop/sequences"))
    assert never["sequences"].tolist() == [120, 400]
    assert not never["solved"].any()


def test_the_figure_shows_each_network_and_the_printed_means() -> None:
    table = as_printed()
    axes = figure(table).axes
    sequences, wrong, listed = axes
    assert [text.get_text() for text in sequences.get_yticklabels()] == [
        printed.label for printed in PRINTED.values()
    ]
    drawn = [line for line in sequences.lines if line.get_marker() == "D" and len(line.get_xdata())]
    marks = [line.get_xdata()[0] for line in drawn]
    assert marks == [printed.sequences for printed in PRINTED.values()]
    assert wrong.get_xlabel() == "wrong of 2,560 sequences"
    texts = [text.get_text() for text in listed.texts]
    assert {"31,390", "20 of 20", "10 of 10"} <= set(texts)


@pytest.mark.parametrize("row", [*PRINTED, "2c", "3a", "3b", "3c"])
def test_rows_have_the_papers_settings(composed: Compose, row: str) -> None:
    rates = {"2c": 0.01, "3a": 1.0, "3b": 1.0, "3c": 0.1, "5_n140": 0.1, "5_n13": 0.1, "6b": 0.1}
    config = composed(f"+hs97={row}", "task.test_size=1")
    assert config.optim["learning_rate"] == rates.get(row, 0.5)
    assert config.train.batch_size == 1
    assert config.train.objective == "half_sum"
    limit = 0.2 if row == "2c" else 0.1  # Table 11, weight interval
    assert config.model.other_limit == config.init["limit"] == limit
    blocks = {"2c": 2, "6b": 3, "3a": 3, "3b": 3, "3c": 3}.get(row, 2)
    assert config.model.hidden_size // config.model.cell["block_size"] == blocks
