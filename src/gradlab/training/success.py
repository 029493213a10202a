"""Two criteria for whether and when a run solved its task; they can disagree."""

from collections.abc import Mapping, Sequence

MAX_ERROR_RATE = 0.01  # share of wrong held-out sequences below which a task is solved


def success(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Judge a run by the error rates in its rows of metrics.

    Args:
        rows: the run's logged rows, in order.

    Returns:
        "success/solved": 1 if fewer than 1 % of the held-out sequences are wrong at the end of
        training (the criterion in the text of Pascanu, Mikolov & Bengio 2013), else 0.
        "success/first_hit": the training step of the first evaluation without a wrong sequence
        (where their code stops), absent if there is none; one lucky evaluation is enough, so this
        criterion is the more lenient. Empty if no row has an error rate.
    """
    evaluations = [row for row in rows if "eval/error_rate" in row]
    if not evaluations:
        return {}
    solved = float(rows[-1].get("eval/error_rate", 1.0) < MAX_ERROR_RATE)
    hits = [row["train/step"] for row in evaluations if row["eval/error_rate"] == 0]
    return {"success/solved": solved} | ({"success/first_hit": hits[0]} if hits else {})
