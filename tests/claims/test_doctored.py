"""Sentence and test of a claim say the same: where the sentence is false, it is not reproduced.

Each case takes a study's bundled table and changes the rows that a claim is about.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.claims.results import load_results
from gradlab.claims.study import load_study, study_names
from gradlab.claims.verdicts import Outcome, judge

ROOT = Path(__file__).parents[2]
Doctor = Callable[[pd.DataFrame], pd.DataFrame]


def outcome(study: str, claim: str, doctor: Doctor | None = None) -> Outcome:
    """Judge a claim of a study on its bundled table, doctored."""
    loaded = load_study(ROOT, study)
    table, _ = load_results(loaded, "small", loaded.folder)
    (entry,) = (x for x in loaded.claims if x.id == claim)
    return judge(entry, doctor(table) if doctor else table).outcome


def replaced(condition: str, column: str, by: str) -> Doctor:
    """Return a doctor that sets a column to an expression, in rows where a condition holds."""

    def doctor(table: pd.DataFrame) -> pd.DataFrame:
        table = table.copy()
        rows = table.query(condition).index
        assert len(rows), condition
        table.loc[rows, column] = table.loc[rows].eval(by)
        return table

    return doctor


FALSE = {
    "an orthogonal matrix loses one lag": (
        "ground_truths",
        "F1.E1",
        replaced("truth == 'E1' and x == 7", "measured", "-0.01"),
    ),
    "the 11th of Newman's exponents is 9 standard errors off": (
        "ground_truths",
        "F1.E6",
        replaced("truth == 'E6' and x == 11", "measured", "expected + 9 * standard_error"),
    ),
    "the first of Newman's exponents is 3.3 standard errors off": (
        "ground_truths",
        "F1.E6",
        replaced("truth == 'E6' and x == 1", "measured", "expected + 3.3 * standard_error"),
    ),
    "one lag of chrono's tail is off": (
        "ground_truths",
        "F1.E11",
        replaced("truth == 'E11' and x == 100", "measured", "expected + 4 * standard_error"),
    ),
    "λ₁ at g = 1.5 is off by less than the 0.02 once allowed": (
        "order_chaos",
        "F5.a",
        replaced("part == 'exponent' and gain == 1.5 and noise == 0", "rate", "theory - 0.015"),
    ),
    "networks of 200 units have another spectrum than those of 400": (
        "order_chaos",
        "F5.d",
        replaced("part == 'spectrum' and n == 200", "rate", "rate - 0.05"),
    ),
    "N = 100 has another spectrum than N = 400": (
        "order_chaos",
        "F5.d",
        replaced("part == 'spectrum' and n == 100", "rate", "rate - 0.05"),
    ),
    "noise leaves the onset where it was": (
        "order_chaos",
        "F5.e",
        replaced("part == 'exponent' and noise == 0.1", "gain", "gain - 0.3"),
    ),
    "one unclipped walker takes small steps alone": (
        "error_surface",
        "F2.d",
        replaced("part == 'walk' and clipped == False and walker == 2", "step", "step * 1e-6"),
    ),
    "one unclipped walker arrives": (
        "error_surface",
        "F2.d",
        replaced("part == 'walk' and clipped == False and walker == 2", "error", "error * 1e-6"),
    ),
    "a short window finds the optimum": (
        "influence_balancing",
        "F7.b",
        replaced("loss == 'sum' and window == 20 and update == 3000", "theta", "-1 / 6"),
    ),
    "half of the networks are worse conditioned after flossing": (
        "gradient_flossing",
        "F14.b",
        replaced("part == 'singular' and flossed == 1 and seed < 5", "decades", "50 * decades"),
    ),
    "an untrained network is not at chance": (
        "temporal_order",
        "F3.f",
        replaced("seed == 3", "nll_start", "nll_start + 0.1"),
    ),
}


@pytest.mark.parametrize("case", FALSE)
def test_a_false_sentence_is_not_reproduced(case: str) -> None:
    study, claim, doctor = FALSE[case]
    assert outcome(study, claim) in ("reproduced", "inconclusive")
    assert outcome(study, claim, doctor) == "not reproduced"


def test_small_samples_of_a_noisy_difference_show_no_equality() -> None:
    """What two networks cannot tell apart is not therefore equal."""
    assert outcome("order_chaos", "F5.d") == "inconclusive"

    def equal(table: pd.DataFrame) -> pd.DataFrame:
        spectra = table["part"] == "spectrum"
        noise = np.random.default_rng(0).normal(0, 0.002, spectra.sum())
        table.loc[spectra, "rate"] = 0.04 + noise
        return table

    assert outcome("order_chaos", "F5.d", equal) == "reproduced"


def test_the_published_time_of_chrono_is_judged_on_networks_of_the_source() -> None:
    """Rows of 32 units do not stand for the source's 128, at 750 steps or any other."""
    longer = replaced("`task.length` == 200", "task.length", "750")

    def of_128_units(times: float) -> Doctor:
        def doctor(table: pd.DataFrame) -> pd.DataFrame:
            two = table["network"].isin(["lstm_chrono", "lstm_forget_1"])
            table = table[two & (table["task.length"] == 100)].copy()
            table["task.length"], table["model.hidden_size"] = 750, 128
            learned = table["step"] >= np.where(table["network"] == "lstm_chrono", 300, 300 * times)
            table["value"] = np.where(learned, 0.001, 0.16)
            return table

        return doctor

    assert outcome("adding", "F6.e", longer) == "not run"
    assert outcome("adding", "F6.e", of_128_units(7)) == "reproduced"
    assert outcome("adding", "F6.e", of_128_units(3)) == "not reproduced"


OWN = {  # what was judged by thresholds of ours, or is another experiment than its source's
    "forget_gate": ("F18.a", "F18.b", "F18.c"),
    "gradient_flossing": ("F14.c",),
    "temporal_order": ("F3.a", "F3.b", "F3.c", "F3.d"),
    "clipping_threshold": ("F4.a", "F4.b", "F4.c"),
    "cell_path": ("CP.b", "CP.c", "CP.d"),
    "forget_bias": ("F8.b", "F8.c"),
    "adding": ("F6.a", "F6.b", "F6.c"),
    "copying": ("F9.a", "F9.b"),
}


@pytest.mark.parametrize("study", sorted(OWN))
def test_what_is_ours_gets_no_verdict_and_says_what_it_had(study: str) -> None:
    claims = {claim.id: claim for claim in load_study(ROOT, study).claims}
    for claim in OWN[study]:
        assert outcome(study, claim) == "observed"
        assert claims[claim].changed


def test_an_identity_is_judged_once() -> None:
    exact = [
        claim.id
        for name in study_names(ROOT)
        for claim in load_study(ROOT, name).claims
        if claim.provenance == "exact"
    ]
    assert {"F1.E1", "F1.E9", "F1.E12"} <= set(exact)
    assert not {"F9.c", "F9.d", "F10.a", "F8.a", "F7.c"} & set(exact)
