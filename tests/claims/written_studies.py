"""Claims and studies for tests."""

from pathlib import Path

import yaml

from gradlab.claims.study import Claim


def claim(test: str | None, **changes: object) -> Claim:
    """Return a claim on the columns `solved` and `clip.threshold`, changed as given."""
    fields = {
        "id": "X.a",
        "claim": "clipping helps",
        "source": "nobody",
        "provenance": "second-hand",
        "expected": "it does",
        "statistic": {
            "clipped": "rate(solved[clip.threshold == 1])",
            "free": "rate(solved[clip.threshold == inf])",
            "p": "fisher(solved[clip.threshold == 1], solved[clip.threshold == inf])",
        },
        "test": test,
    }
    return Claim(**(fields | changes))  # type: ignore[arg-type]


def write_study(root: Path, name: str, experiment: str, **fields: object) -> None:
    """Write a study's experiment file and claims.yaml into a project at `root`."""
    (root / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
    (root / "conf" / "experiment" / f"{name}.yaml").write_text(experiment)
    folder = root / "experiments" / name
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "title": name,
        "sources": ["nobody"],
        "figure": {"_target_": "gradlab.studies.mine.figure"},
    }
    (folder / "claims.yaml").write_text(yaml.safe_dump(written | fields))
