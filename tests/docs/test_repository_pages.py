"""Links of pages that the site shows elsewhere than the repository keeps them."""

from pathlib import Path

import repository

ROOT = Path(__file__).parents[2]


def turned(text: str, source: str, page: str) -> str:
    return repository.with_links_of_the_site(text, ROOT / source, ROOT / "docs" / page)


def test_links_between_pages_are_turned_to_the_sites() -> None:
    assert turned("[a](docs/sweeps.md#x)", "README.md", "index.md") == "[a](sweeps.md#x)"
    assert turned("[a](experiments/README.md)", "README.md", "index.md") == "[a](studies/index.md)"
    study = "experiments/copying/README.md"
    assert turned("[a](../adding/README.md)", study, "studies/copying.md") == "[a](adding.md)"
    assert turned("![a](small.png)", study, "studies/copying.md") == (
        "![a](../../experiments/copying/small.png)"
    )
    assert turned("[a](../CONTRIBUTING.md)", "docs/words.md", "words.md") == "[a](contributing.md)"


def test_other_links_stay() -> None:
    for text in (
        "[a](https://optuna.org)",
        "[a](#there)",
        "[a](words.md)",
        "[a](figures/decay.png)",
        "[a](../.github/PULL_REQUEST_TEMPLATE.md)",  # on no page of the site
    ):
        assert turned(text, "docs/figures.md", "figures.md") == text


def test_a_folder_is_no_page() -> None:
    assert turned("see [the tests](tests).", "README.md", "index.md") == "see the tests."
