"""The language of claims, and verdicts by the whole interval."""

import numpy as np
import pandas as pd
import pytest
from written_studies import claim

from gradlab.claims.expressions import ClaimError, NoRows, evaluate
from gradlab.claims.statistics import Estimate
from gradlab.claims.verdicts import judge

TABLE = pd.DataFrame(
    {
        "clip.threshold": [1.0] * 10 + [np.inf] * 10,
        "solved": [True] * 9 + [False] + [True] * 2 + [False] * 8,
        "steps": [*range(100, 110), *range(200, 210)],
        "task": ["adding"] * 20,
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(steps[solved and clip.threshold == inf])", 401),
        ("size(steps[solved])", 11),
        ("2 ** 3 - 1", 7),
        ("max(steps) - min(steps)", 109),
        ("max(steps[clip.threshold == 1])", 109),
        ("max(abs(steps - 100))[clip.threshold == 1 and not solved]", 9),
        ("mean(steps[task == 'adding' and clip.threshold in [1, 2]])", 104.5),
        ("sum_of_two + 1", 4),
    ],
)
def test_expressions(text: str, expected: float) -> None:
    assert evaluate(text, TABLE, {"sum_of_two": 3}) == pytest.approx(expected)


def test_each_evaluates_once_per_value() -> None:
    means = evaluate("each(clip.threshold, mean(steps))", TABLE)
    np.testing.assert_array_equal(means, [104.5, 204.5])
    assert evaluate("increasing(each(clip.threshold, mean(steps)))", TABLE) is True
    assert evaluate("increasing(-each(clip.threshold, mean(steps)))", TABLE) is False


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "open('x')",
        "steps.__class__",
        "(lambda: 1)()",
        "[x for x in steps]",
        "max(steps, key=abs)",
        "f'{steps}'",
        "nosuch + 1",
        "steps[",
        "task + 1",
        "steps is None",
        "steps.__class__.__base__",
        "().__class__",
        "max.__globals__",
        "'a' * 999999999",
        "999999999 * [1]",
        "task * 999999999",
        "1 / 0",
        "each(sum_of_two, 1)",
        "max(9 ** 9 ** 9 ** 9, steps, steps)",
        "(" * 500 + "1" + ")" * 500,
        "+".join(["1"] * 1100),
        "steps + " + "9" * 5000,
    ],
)
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    with pytest.raises(ClaimError):
        evaluate(text, TABLE, {"sum_of_two": 3})


def test_huge_powers_are_infinite_and_take_no_time() -> None:
    assert evaluate("9 ** 9 ** 9 ** 9", TABLE) == np.inf
    assert evaluate("max(steps ** 999)", TABLE) == np.inf


def test_a_condition_without_rows_is_no_error_of_the_claim() -> None:
    with pytest.raises(NoRows):
        evaluate("max(steps)[clip.threshold == 3]", TABLE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("near >= 0.6", True),
        ("near >= 0.7", None),  # its value passes, part of its interval does not
        ("near >= 0.8", None),
        ("near > 0.9", False),
        ("0.5 < near < 1", True),
        ("0.7 < near < 1", None),
        ("near < 0.5 or near > 0.95", False),
        ("not near >= 0.8", None),
        ("near >= 0.8 and near >= 0.95", False),
        ("near >= 0.8 or near >= 0.5", True),
        ("near >= 0.8 and near >= 0.5", None),
        ("near == 0.75", None),
        ("near != 2", True),
        ("certain == 1", True),
        ("near < far", True),
        ("far < near", False),
        ("far < 10 * near", None),
        ("2 * near - 1 > 0.1", True),
        ("-near < -0.5", True),
        ("1 - near > 0.2", None),
        ("1 / near < 2", True),
        ("log(near) > log(0.59)", True),
        ("exp(log(near)) < 0.901", True),
        ("p < 0.05", None),  # more networks may bring it down
        ("wrong_way < 0.05", False),
        ("all(each(clip.threshold, sample_mean(steps)) > 90)", True),
        ("all(each(clip.threshold, sample_mean(steps)) > 150)", False),
        ("all(90 < each(clip.threshold, sample_mean(steps)) < 300)", True),
        ("all(each(clip.threshold, sample_mean(steps)) / 100 > 1.04)", None),
    ],
)
def test_a_comparison_is_of_the_whole_interval(text: str, expected: bool | None) -> None:
    estimates = {
        "near": Estimate(0.75, 0.6, 0.9, 10),
        "far": Estimate(7.0, 6.5, 7.5, 10),
        "certain": Estimate(1.0, 1.0, 1.0, 10),
        "p": Estimate(0.2, 0.0, 0.2, 10, is_p=True),
        "wrong_way": Estimate(0.7, 0.7, 0.7, 10, is_p=True),
    }
    assert evaluate(text, TABLE, estimates) is expected


@pytest.mark.parametrize(
    "text",
    [
        "abs(near - 1) < 0.5",
        "max(near)",
        "near - near",
        "near / near",
        "near ** 2",
        "near * steps",
        "near == steps",
        "near in [0.75]",
        "1 / around_zero",
        "2 * p",
        "log(p)",
        "increasing(each(clip.threshold, sample_mean(steps)))",
        "max(each(clip.threshold, sample_mean(steps)))",
        "steps[near > 0.8]",
        "steps[steps > 100 and near > 0.8]",
        "rate(near)",
    ],
)
def test_an_interval_is_never_dropped(text: str) -> None:
    estimates = {
        "near": Estimate(0.75, 0.6, 0.9, 10),
        "around_zero": Estimate(0.1, -1.0, 1.0, 10),
        "p": Estimate(0.2, 0.0, 0.2, 10, is_p=True),
    }
    with pytest.raises(ClaimError):
        evaluate(text, TABLE, estimates)


@pytest.mark.parametrize("text", ["sample_median({})", "mann_whitney({}, steps)", "rate({})"])
def test_a_missing_number_is_no_number(text: str) -> None:
    table = TABLE.assign(y=np.where(TABLE["solved"], 1.0, np.nan))
    with pytest.raises(ClaimError, match=r"missing \(NaN\)"):
        evaluate(text.format("y"), table)
    assert evaluate(text.format("y[solved]"), table).n == 11


def test_an_interval_with_an_unknown_end_decides_nothing() -> None:
    assert evaluate("x < 1", TABLE, {"x": Estimate(np.nan, np.nan, np.nan, 3)}) is None
    assert evaluate("x < 1", TABLE, {"x": Estimate(0.5, -np.inf, np.inf, 1)}) is None


def test_verdicts() -> None:
    def outcome(test: str, table: pd.DataFrame = TABLE, **changes: object) -> str:
        return judge(claim(test, **changes), table).outcome

    assert outcome("p < 0.01 and clipped >= 0.5 and free <= 0.6") == "reproduced"
    assert outcome("clipped >= 0.8") == "inconclusive"  # 9 of 10 may be 60 %
    assert outcome("free >= 0.9") == "not reproduced"
    assert outcome("p < 0.001") == "inconclusive"  # the right way, too few
    turned = TABLE.assign(solved=~TABLE["solved"])
    assert outcome("p < 0.01", turned) == "not reproduced"
    assert outcome("p < 0.01", TABLE[:10]) == "not run"
    assert judge(claim("clipped >= 0.5", budget={"seeds": 11}), TABLE)[1::2] == ("inconclusive", 11)
    with pytest.raises(ClaimError, match="is a column"):
        judge(claim("steps < 1", statistic={"steps": "max(steps)"}), TABLE)
    with pytest.raises(ClaimError, match=r"all\(…\)"):
        judge(claim("steps < 1", statistic={}), TABLE)
    with pytest.raises(ClaimError, match=r"all\(…\)"):
        judge(claim("each(task, rate(solved)) < 1", statistic={}), TABLE)


def test_an_observation_has_statistics_and_no_verdict() -> None:
    seen = claim(None, provenance="own", expected=None, statistic={"k": "count(solved)"})
    assert judge(seen, TABLE)[1:] == ("observed", {"k": 11}, None)
    assert judge(seen, TABLE[:0].astype({"solved": bool})).statistics == {"k": 0}


@pytest.mark.parametrize("test", ["mean > 104", "mean < 104.6", "p < 0.001", "agreement"])
def test_the_networks_that_would_decide_are_the_least(test: str) -> None:
    """As many copies of the rows decide the claim; a copy fewer than the number asks for do not."""
    statistic = {
        "mean": "sample_mean(steps[clip.threshold == 1])",
        "p": "fisher(solved[clip.threshold == 1], solved[clip.threshold == inf])",
        "k": "count(solved[clip.threshold == 1])",
        "agreement": "agrees(k, 10, 90, 100, 0.1)",
    }
    verdict = judge(claim(test, statistic=statistic), TABLE)
    assert verdict.outcome == "inconclusive"
    assert verdict.networks is not None
    factor = verdict.networks / 10

    def decided(more: float) -> bool:
        values: dict[str, object] = {}
        for name, text in statistic.items():
            values[name] = evaluate(text, TABLE, values, more)
        return evaluate(test, TABLE, values, more) is not None

    assert decided(factor)
    assert not decided(factor - 0.1)
    if test != "agreement":
        copies = pd.concat([TABLE] * int(np.ceil(1.3 * factor)))  # a t interval shrinks faster
        del statistic["agreement"]
        assert judge(claim(test, statistic=statistic), copies).outcome != "inconclusive"


def test_no_number_of_networks_is_named_where_none_would_decide() -> None:
    on_the_edge = claim("mean > 104.5", statistic={"mean": "sample_mean(steps[solved])[solved]"})
    table = TABLE[:10].assign(solved=True)
    assert judge(on_the_edge, table)[1::2] == ("inconclusive", None)
