"""What a study says of its source's settings, against the configs that run.

claims.yaml names config keys with the source's values (`source_settings`). A key whose value is
another at any scale must stand in a sentence of `differs`, and one that is the source's must not.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from gradlab import config
from gradlab.__main__ import CONF
from gradlab.claims.study import load_study, study_names

ROOT = Path(__file__).parents[2]
STUDIES = {name: load_study(ROOT, name) for name in study_names(ROOT)}


def composed(*overrides: str) -> DictConfig:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(made)  # values may depend on what was chosen
    return made


def levels(text: Any) -> list[Any]:
    """Return what a sweeper's text stands for: "20,30" or "range(10)"."""
    text = str(text)
    if text.startswith("range("):
        return list(range(*yaml.safe_load(f"[{text[6:-1]}]")))
    return list(yaml.safe_load(f"[{text}]"))


def number(value: Any) -> Any:
    """Return a value such that 0.1, "0.1", .inf and "inf" are what they stand for."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value if value is None else str(value)


def settings_of(experiment: str, keys: list[str]) -> dict[str, set[Any]]:
    """Return each key's values over all points of an experiment, None where it has none."""
    swept = {
        key.lstrip("+"): (f"{key}=", levels(text))
        for key, text in (composed(f"+experiment={experiment}").hydra.sweeper.params or {}).items()
    }
    groups = [
        [f"{override}{level}" for level in values]
        for key, (override, values) in swept.items()
        if (CONF / key).is_dir()
    ]
    values: dict[str, set[Any]] = {key: set() for key in keys}
    for choice in product(*groups):
        made = composed(f"+experiment={experiment}", *choice)
        for key in keys:
            at = OmegaConf.select(made, key)
            _, listed = swept.get(key, ("", at if isinstance(at, ListConfig) else [at]))
            values[key] |= set(map(number, listed))
    return values


def wrong_sentences(name: str) -> dict[str, str]:
    """Return the keys of a study's source settings that `differs` is wrong about, and why."""
    study = STUDIES[name]
    keys = list(study.source_settings)
    ours = [settings_of(study.experiment(scale).stem, keys) for scale in study.scales()]
    wrong = {}
    for key, printed in study.source_settings.items():
        source = set(map(number, printed if isinstance(printed, list) else [printed]))
        found = [values[key] - {None} for values in ours]
        is_named = any(f"`{key}`" in sentence for sentence in study.differs)
        if is_named and all(values == source for values in found):
            wrong[key] = f"differs names it, and it is {source} everywhere"
        if not is_named and any(values != source for values in found):
            wrong[key] = f"it is {found} here and {source} there: name it in differs"
    return wrong


@pytest.mark.parametrize("name", [name for name in STUDIES if STUDIES[name].source_settings])
def test_differs_names_the_settings_that_differ_and_no_others(name: str) -> None:
    assert wrong_sentences(name) == {}


def test_a_setting_that_differs_unsaid_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    study = STUDIES["temporal_order"]
    unsaid = {"model.hidden_size": 51, "clip.threshold": [float("inf"), 1], "nosuch.key": 1}
    stale = ["`optim.learning_rate` is another."]
    changed = {"source_settings": unsaid | {"optim.learning_rate": 0.01}, "differs": stale}
    monkeypatch.setitem(STUDIES, "temporal_order", study.model_copy(update=changed))
    wrong = wrong_sentences("temporal_order")
    assert set(wrong) == {"model.hidden_size", "nosuch.key", "optim.learning_rate"}
    assert "it is {0.01} everywhere" in wrong["optim.learning_rate"]


def test_studies_of_printed_settings_have_them() -> None:
    """A claim of a published number is nothing without the settings that it was found at."""
    published = [
        name
        for name, study in STUDIES.items()
        if any(claim.provenance == "published-number" for claim in study.claims)
    ]
    assert published
    assert all(STUDIES[name].source_settings for name in published)
