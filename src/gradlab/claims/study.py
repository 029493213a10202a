"""Studies and their claims, as experiments/NAME/claims.yaml declares them."""

from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from gradlab.claims.expressions import ClaimError, parse
from gradlab.explain import first_line

CLAIMS = "claims.yaml"
FULL = "_full"  # conf/experiment/NAME_full.yaml is the study at the scale of its source

Provenance = Literal["exact", "paper-text", "paper-figure", "pilot", "memory"]
Kind = Literal["exact", "numeric", "ordinal", "invariant"]
Scale = Literal["small", "full"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Strict):
    """The runs that a claim is judged on; with fewer draws than `seeds` it is inconclusive.

    `updates` and `cpu_seconds` are for readers of claims.yaml; nothing is computed from them.
    """

    seeds: int | None = None
    updates: int | None = None
    cpu_seconds: float | None = None


class Claim(_Strict):
    """A statement of a source, and the test that our results must pass to agree with it.

    `kind` is for readers of claims.yaml; nothing is computed from it.
    """

    id: str
    claim: str
    source: str
    provenance: Provenance
    kind: Kind
    expected: str  # the source's number, as text for readers
    statistic: dict[str, str]
    test: str
    budget: Budget = Budget()

    def model_post_init(self, _: Any) -> None:
        """Check that every expression can be parsed."""
        for text in (*self.statistic.values(), self.test):
            parse(text)


class Study(_Strict):
    """A question, the claims of its sources, and the figure that shows the answer."""

    name: str
    title: str
    sources: list[str]
    figure: dict[str, Any]  # `_target_`: a function of the table; and its other arguments
    points: dict[str, str] = Field(default_factory=dict)  # of sweeps: a number per training
    rows: dict[str, Any] = Field(default_factory=dict)  # of sweeps: `_target_`, see `collect`
    claims: list[Claim]
    root: Path

    @property
    def folder(self) -> Path:
        """Return the folder of its claims, results, figure and verdicts."""
        return self.root / "experiments" / self.name

    @property
    def question(self) -> str:
        """Return the question: the first comment of the experiment file."""
        return first_line(self.experiment("small"))

    def experiment(self, scale: Scale) -> Path:
        """Return the experiment file of a scale."""
        suffix = FULL if scale == "full" else ""
        return self.root / "conf" / "experiment" / f"{self.name}{suffix}.yaml"

    def scales(self) -> list[Scale]:
        """Return the scales that have an experiment file."""
        scales: tuple[Scale, ...] = ("small", "full")
        return [scale for scale in scales if self.experiment(scale).is_file()]


def load_study(root: Path, name: str) -> Study:
    """Read a study of the project at `root`.

    Raises:
        ClaimError: there is no study of that name, or its claims.yaml is invalid; the message says
            where.
    """
    path = root / "experiments" / name / CLAIMS
    if not path.is_file():
        known = ", ".join(study_names(root))
        raise ClaimError(f"there is no study {name!r}; the studies are {known}.")
    try:
        study = Study(name=name, root=root, **yaml.safe_load(path.read_text()))
    except (pydantic.ValidationError, yaml.YAMLError, TypeError) as error:
        raise ClaimError(f"{path.relative_to(root)}: {_first_error(error)}.") from error
    ids = [claim.id for claim in study.claims]
    for duplicate in {i for i in ids if ids.count(i) > 1}:
        raise ClaimError(f"{path.relative_to(root)}: two claims have the id {duplicate!r}.")
    if not study.scales():
        raise ClaimError(f"{name} needs {study.experiment('small').relative_to(root)}: what runs.")
    return study


def study_names(root: Path) -> list[str]:
    """Return the names of a project's studies, in alphabetical order."""
    return sorted(path.parent.name for path in (root / "experiments").glob(f"*/{CLAIMS}"))


def _first_error(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'].removeprefix('Value error, ').rstrip('.')}"
