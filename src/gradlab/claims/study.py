"""Studies and their claims, as experiments/NAME/claims.yaml declares them.

The file is data: it may come from somebody else. Its expressions are evaluated by `expressions`,
and the functions that it names are figures and tables of gradlab's own (`function_of`).
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

import pandas as pd
import pydantic
import yaml
from hydra.utils import get_object
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gradlab.claims.expressions import ClaimError, parse
from gradlab.explain.groups import first_line

CLAIMS = "claims.yaml"
FULL = "_full"  # conf/experiment/NAME_full.yaml is the study at the scale of its source

Provenance = Literal["published-number", "published-order", "exact", "second-hand", "own"]
Scale = Literal["small", "full"]


OWN = re.compile(r"gradlab\.(figures|studies)(\.[A-Za-z]\w*)+")  # whose functions are called


def _names_own_function(section: dict[str, Any]) -> dict[str, Any]:
    target = section.get("_target_")
    if section and not (isinstance(target, str) and OWN.fullmatch(target)):
        raise ValueError(
            f"_target_ must be a function of gradlab.figures or gradlab.studies; got {target!r}"
        )
    return section


Called = Annotated[dict[str, Any], AfterValidator(_names_own_function)]


def function_of(section: Mapping[str, Any], returns: str) -> Callable[[pd.DataFrame], Any]:
    """Return the function of a table that a section of claims.yaml names, with its arguments.

    Args:
        section: `_target_` and arguments.
        returns: the name of the type that it must return, by its annotation.

    Raises:
        ClaimError: gradlab.figures and gradlab.studies define no such function, or it does not take
            these arguments.
    """
    target = str(section.get("_target_"))
    arguments = {key: value for key, value in section.items() if key != "_target_"}
    try:
        _names_own_function(dict(section))
        function = get_object(target)
        is_own = inspect.isfunction(function) and OWN.fullmatch(f"{function.__module__}.x")
        returned = get_type_hints(function).get("return") if is_own else None
        if getattr(returned, "__name__", "") == returns:
            inspect.signature(function).bind(None, **arguments)
            return partial(function, **arguments)
    except (ValueError, ImportError):
        pass
    except TypeError as error:
        raise ClaimError(f"{target}: {error}.") from error
    raise ClaimError(f"gradlab has no function {target} that returns a {returns}.")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Strict):
    """The runs that a claim is judged on; with fewer draws than `seeds` it is inconclusive.

    `updates` and `cpu_seconds` are for readers of claims.yaml; nothing is computed from them.
    """

    seeds: int | None = None
    updates: int | None = None
    cpu_seconds: float | None = None


class Change(_Strict):
    """A claim or setting that was changed after a result was seen, and that result."""

    what: str
    before: str


class Claim(_Strict):
    """A statement of a source, and the test that our results must pass to agree with it.

    A claim of provenance `own` is our observation: it has statistics, no expectation and no test.
    """

    id: str
    claim: str
    source: str
    provenance: Provenance
    expected: str | None = None  # the source's number, as text for readers
    statistic: dict[str, str]
    test: str | None = None
    budget: Budget = Budget()
    changed: list[Change] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Check that every expression can be parsed, and that all but observations have a test."""
        for text in (*self.statistic.values(), *([self.test] if self.test else [])):
            parse(text)
        is_own, given = self.provenance == "own", [self.test is not None, self.expected is not None]
        if is_own and any(given):
            raise ValueError(
                f"{self.id} is our own observation; it has no `test` and no `expected`"
            )
        if not is_own and not all(given):
            raise ValueError(f"{self.id} needs `test` and `expected`, or provenance: own")
        return self


class Study(_Strict):
    """A question, the claims of its sources, and the figure that shows the answer."""

    name: str
    title: str
    sources: list[str]
    figure: Called  # `_target_`: a function of the table; and its other arguments
    points: dict[str, str] = Field(default_factory=dict)  # of sweeps: a number per training
    rows: Called = Field(default_factory=dict)  # of sweeps: `_target_`, see `collect`
    changed: list[Change] = Field(default_factory=list)
    source_settings: dict[str, Any] = Field(default_factory=dict)  # config key: the source's value
    differs: list[str] = Field(default_factory=list)  # from the source; why it decides nothing
    claims: list[Claim]
    root: Path

    @property
    def folder(self) -> Path:
        """Return the folder of its claims, and of the results, figure and verdicts we bundle."""
        return self.root / "experiments" / self.name

    @property
    def runs(self) -> Path:
        """Return the folder of a reader's own runs, results, figure and verdicts."""
        return self.root / "runs" / self.name

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
    if name not in (known := study_names(root)):
        raise ClaimError(f"there is no study {name!r}; the studies are {', '.join(known)}.")
    try:
        study = Study(name=name, root=root, **yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError, TypeError) as error:
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
