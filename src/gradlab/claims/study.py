"""Studies and their claims, as experiments/NAME/claims.yaml gives them."""

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
    """What a claim is judged on; with fewer draws than `seeds` it is inconclusive."""

    seeds: int | None = None
    updates: int | None = None
    cpu_seconds: float | None = None


class Claim(_Strict):
    """What a source says, and what has to hold in our results if it is so."""

    id: str
    claim: str
    source: str
    provenance: Provenance
    kind: Kind
    expected: str  # the source's figure, for people to read
    statistic: dict[str, str]
    test: str
    budget: Budget = Budget()

    def model_post_init(self, _: Any) -> None:
        """Refuse expressions that cannot be read."""
        for text in (*self.statistic.values(), self.test):
            parse(text)


class Study(_Strict):
    """A question, what the sources claim, and how the answer is drawn."""

    name: str
    title: str
    sources: list[str]
    figure: dict[str, Any]  # `_target_`, a function of the table, and its other arguments
    points: dict[str, str] = Field(default_factory=dict)  # a sweep's: a number of each training
    rows: dict[str, Any] = Field(default_factory=dict)  # a sweep's: `_target_`, see `collect`
    claims: list[Claim]
    root: Path

    @property
    def folder(self) -> Path:
        """Where its claims, results, figure and verdict are."""
        return self.root / "experiments" / self.name

    @property
    def question(self) -> str:
        """What it asks: the first comment of what runs."""
        return first_line(self.experiment("small"))

    def experiment(self, scale: Scale) -> Path:
        """The file that says what runs."""
        suffix = FULL if scale == "full" else ""
        return self.root / "conf" / "experiment" / f"{self.name}{suffix}.yaml"

    def scales(self) -> list[Scale]:
        """The scales that it can be run at."""
        scales: tuple[Scale, ...] = ("small", "full")
        return [scale for scale in scales if self.experiment(scale).is_file()]


def load_study(root: Path, name: str) -> Study:
    """Read a study of the project at `root`.

    Raises:
        ClaimError: there is none of that name, or its claims.yaml is not as it should be; the
            sentence says where.
    """
    path = root / "experiments" / name / CLAIMS
    if not path.is_file():
        known = ", ".join(study_names(root))
        raise ClaimError(f"there is no study {name!r}; the studies are {known}.")
    try:
        study = Study(name=name, root=root, **yaml.safe_load(path.read_text()))
    except (pydantic.ValidationError, yaml.YAMLError, TypeError) as error:
        raise ClaimError(f"{path.relative_to(root)}: {_first(error)}.") from error
    ids = [claim.id for claim in study.claims]
    for twice in {i for i in ids if ids.count(i) > 1}:
        raise ClaimError(f"{path.relative_to(root)}: two claims have the id {twice!r}.")
    if not study.scales():
        raise ClaimError(f"{name} needs {study.experiment('small').relative_to(root)}: what runs.")
    return study


def study_names(root: Path) -> list[str]:
    """The studies of a project, in alphabetical order."""
    return sorted(path.parent.name for path in (root / "experiments").glob(f"*/{CLAIMS}"))


def _first(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return " ".join(str(error).split())
    found = error.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg'].removeprefix('Value error, ').rstrip('.')}"
