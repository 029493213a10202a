"""Whether and when a task was solved, by two criteria that give different figures."""

from collections.abc import Mapping, Sequence

SOLVED = 0.01  # share of held-out sequences that may be wrong


def success(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What a run's rows of metrics say; nothing of a task that calls no sequence wrong.

    `success/solved` is 1 if under 1 % of the held-out sequences are wrong when training ends, as
    in the text of Pascanu, Mikolov & Bengio 2013. `success/first_hit` is the training step of the
    first check that found none wrong, where their code stops (absent if there was none): a lucky
    check is enough, so it flatters.
    """
    checks = [row for row in rows if "eval/error_rate" in row]
    if not checks:
        return {}
    found = {"success/solved": float(rows[-1].get("eval/error_rate", 1.0) < SOLVED)}
    hits = [row["train/step"] for row in checks if row["eval/error_rate"] == 0]
    return found | ({"success/first_hit": hits[0]} if hits else {})
