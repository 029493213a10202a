"""Every relative link of the repository's pages leads to a file and a heading on a code host.

It knows the files of the repository alone, not the pages that the site makes of them, and names
headings by GitHub's rules.
"""

import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import repository

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2`*\s*$", re.DOTALL | re.MULTILINE)
INLINE_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(<?([^()\s>]+(?:\([^()\s]*\)[^()\s>]*)*)>?(?: \"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#* *$", re.MULTILINE)
FOLDERS = ("docs", "experiments", "analysis", ".github")


def is_made(page: Path) -> bool:
    """Return whether the site's build wrote a page, which the repository does not keep."""
    return repository.MADE in page.read_text()[:200]


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + [
    page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))
]
PAGES = [page for page in PAGES if not is_made(page)]


def links_of(text: str) -> list[str]:
    """Return where the links and pictures of a page lead."""
    return LINK.findall(INLINE_CODE.sub("", FENCE.sub("", text)))


def anchors_of(text: str) -> set[str]:
    """Return the names of a page's headings: small letters, no punctuation, hyphens for spaces."""
    seen = Counter[str]()
    anchors = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


@cache
def anchors_in(page: Path) -> set[str]:
    return anchors_of(page.read_text())


def what_is_wrong(link: str, page: Path) -> str:
    """Return why a link of a page leads nowhere; nothing if it leads somewhere."""
    if re.match(r"[a-z]+:", link):
        return ""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: there is no such file"
    if not target.is_relative_to(ROOT):
        return f"{link}: it leads out of the repository"
    if target.suffix == ".md" and is_made(target):
        return f"{link}: the site's build writes this page, link the one that it is made of"
    if anchor and anchor not in anchors_in(target):
        return f"{link}: {target.relative_to(ROOT)} has no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = [what_is_wrong(link, page) for link in links_of(page.read_text())]
    assert not [reason for reason in wrong if reason]


def test_links_are_found_outside_of_code() -> None:
    text = 'A [a](b.md#c "t"), ![d](e_(f).png) and `[g](h)`.\n\n```bash\n[i](j)\n```\n[k](#l)\n'
    assert links_of(text) == ["b.md#c", "e_(f).png", "#l"]


def test_headings_have_githubs_names() -> None:
    text = "# What's `new`?\n## a_b — c\n## [A map](x.md), again\n```\n# no\n```\n## Two\n## Two\n"
    assert anchors_of(text) == {"whats-new", "a_b--c", "a-map-again", "two", "two-1"}


def test_a_broken_link_is_seen() -> None:
    readme = ROOT / "README.md"
    assert "no such file" in what_is_wrong("docs/nothing.md", readme)
    assert "no such heading" in what_is_wrong("docs/start.md#nothing", readme)
    assert not what_is_wrong("docs/start.md#install", readme)
