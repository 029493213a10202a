"""Pages of the repository that lie outside docs/, as pages of the site.

The README's first screen is the site's first page, and each study's page, which its verdicts are
written into, is a page of the site. Links between them are turned to the site's own.
"""

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MADE = "<!-- made by docs/repository.py -->\n"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
FOLDER_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")
FIRST_SCREEN = re.compile(r"<!-- first screen -->\n(.*?)<!-- end of first screen -->", re.DOTALL)
STUDIES_TREE = """
```{{toctree}}
:hidden:

{names}
```
"""


def site_page(path: Path) -> Path | None:
    """Return where a Markdown file of the repository is shown on the site, None if nowhere."""
    if path.is_relative_to(DOCS):
        return path
    match path.relative_to(ROOT).parts:
        case ["README.md"]:
            return DOCS / "index.md"
        case ["CONTRIBUTING.md" | "CHANGELOG.md" as name]:
            return DOCS / name.lower()
        case ["experiments", "README.md"]:
            return DOCS / "studies/index.md"
        case ["experiments", "speed", "README.md"]:
            return DOCS / "speed.md"
        case ["experiments", study, "README.md"]:
            return DOCS / f"studies/{study}.md"
        case ["experiments", *names]:
            return DOCS / "studies" / "_".join(names)
    return None


def with_links_of_the_site(text: str, source: Path, page: Path) -> str:
    """Return a source's text with its links as they lead from the page that shows it.

    Links to folders, which a site has none of, become their text.
    """

    def without_folder(match: re.Match[str]) -> str:
        return match[1] if (source.parent / match[2]).is_dir() else match[0]

    def turned(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[1]))
        if target.suffix == ".md":
            target = site_page(target) or target
        return os.path.relpath(target, page.parent) + (match[2] or "")

    return LINK.sub(turned, FOLDER_LINK.sub(without_folder, text))


def first_screen(page: Path) -> str:
    """Return the README's first screen, which stands between two marks."""
    readme = ROOT / "README.md"
    found = FIRST_SCREEN.search(readme.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("README.md has lost the marks of its first screen.")
    return with_links_of_the_site(found[1], readme, page)


def write_pages() -> None:
    """Write the pages of the site whose text is kept elsewhere in the repository."""
    sources = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("experiments/**/*.md")]
    pages = {page: source for source in sources if (page := site_page(source))}
    studies = sorted(path.parent.name for path in ROOT.glob("experiments/*/claims.yaml"))
    for page in set(DOCS.glob("studies/*.md")) - set(pages):
        page.unlink()  # whose study is gone
    for page, source in pages.items():
        text = with_links_of_the_site(source.read_text(encoding="utf-8"), source, page)
        listed = page.stem in ("contributing", "changelog", "speed", "index", *studies)
        text = ("" if listed else "---\norphan: true\n---\n") + MADE + text
        if page == DOCS / "studies/index.md":
            text += STUDIES_TREE.format(names="\n".join(studies))
        page.parent.mkdir(exist_ok=True)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
