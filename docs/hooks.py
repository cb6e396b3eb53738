"""What mkdocs asks of us while it builds the site: the navigation, and a page for each file of the repository that pages link to.

The navigation of a folder is the list in its index.md: an item that begins with a link is a page, a heading above it a group.
A page that no index names comes last in its folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SECTIONS = {"Tutorial": "tutorial", "How to": "how-to", "Explanation": "explanation", "Reference": "reference"}
ALONE = {"Performance": "performance.md"}

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(#[^)\s]*)?(?=\))")
ENTRY = re.compile(r"^(?:\d+\.|-) \[[^\]]+\]\(([^)#\s]+\.md)\)|^## (.+)$", re.MULTILINE)
LANGUAGES = {
    ".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".html": "html", ".service": "ini",
    ".socket": "ini", ".md": "markdown",
}  # fmt: skip


# ---- the navigation


def navigation(pages: frozenset[str]) -> list[dict[str, Any]]:
    """What mkdocs calls `nav`, of the pages there are (`"how-to/deploy.md"`)."""
    sections = {title: section(folder, pages) for title, folder in SECTIONS.items()}
    return [{title: its} for title, its in ({"Start": "index.md"} | sections | ALONE).items()]


def section(folder: str, pages: frozenset[str]) -> list[Any]:
    """The pages of a folder: its index, what the index lists, the rest."""
    nav: list[Any] = [f"{folder}/index.md"]
    into, placed = nav, {f"{folder}/index.md"}
    for page, heading in entries(folder):
        if heading:
            into = []
            nav.append({heading: into})
        elif page in pages:
            into.append(page)
            placed.add(page)
    rest = sorted(page for page in pages if posixpath.dirname(page) == folder and page not in placed)
    return [entry for entry in nav if entry not in ([], *({title: []} for title in headings(nav)))] + rest


def headings(nav: list[Any]) -> list[str]:
    return [title for entry in nav if isinstance(entry, dict) for title in entry]


def entries(folder: str) -> Iterator[tuple[str, str]]:
    """Of an index, in order: (page, "") for each item that begins with a link, ("", heading) for each heading."""
    for page, heading in ENTRY.findall((DOCS / folder / "index.md").read_text()):
        yield (posixpath.normpath(f"{folder}/{page}") if page else ""), heading


# ---- files of the repository


def outside(page: str, text: str) -> Iterator[str]:
    """What a page links to that is no part of the manual, as paths from the root of the repository."""
    for target, _ in LINK.findall(FENCED.sub("", text)):
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if not path.startswith(("docs/", "..")):
            yield path


def linked(pages: frozenset[str]) -> dict[str, str]:
    """Every file and folder outside of docs/ that pages lead to, with the text of the page that shows it."""
    shown: dict[str, str] = {}
    wanted = [path for page in pages for path in outside(page, (DOCS / page).read_text())]
    while wanted:
        path = wanted.pop()
        if path not in shown:
            shown[path] = page_of(path)
            # What it links to is relative to its own place, not to that of the page that shows it.
            wanted += outside(f"../{path}", shown[path]) if path.endswith(".md") else folder_of(path)
    return shown


def folder_of(path: str) -> list[str]:
    files = [] if not (ROOT / path).is_dir() else sorted(file for file in (ROOT / path).rglob("*") if file.is_file())
    return [str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts]


def page_of(path: str) -> str:
    file = ROOT / path
    if not file.exists():
        raise FileNotFoundError(f"a page of the manual links to {path}, which is not in this repository")
    if file.is_dir():
        return f"# {path}/\n\n" + "".join(f"- [{name}]({posixpath.relpath(name, posixpath.dirname(path))})\n" for name in folder_of(path))
    if file.suffix == ".md":
        return file.read_text()
    language = LANGUAGES.get(file.suffix, "text")
    return f"# {path}\n\n````{language}\n{file.read_text()}````\n"


def shown_at(path: str) -> str:
    """The page that shows a file of the repository."""
    return f"files/{path.removesuffix('.md')}.md"


def redirected(page: str, text: str, *, place: str) -> str:
    """The text of a page with its links to files of the repository leading to the pages that show them.

    page: where it is shown.  place: what its links are relative to, from the root."""

    def lead(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[1]))
        if path.startswith(".."):
            return found[0]
        to = path.removeprefix("docs/") if path.startswith("docs/") else shown_at(path)
        return posixpath.relpath(to, posixpath.dirname(page) or ".") + (found[2] or "")

    parts = re.split(r"(^(?:`{3,4}).*?^`{3,4}$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)


# ---- what mkdocs calls


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File, InclusionLevel

    pages = frozenset(file.src_uri for file in files.documentation_pages())
    for path, text in linked(pages).items():
        page = shown_at(path)
        content = redirected(page, text, place=path)
        files.append(File.generated(config, page, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    config.nav = navigation(pages)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    uri = page.file.src_uri
    if uri.startswith("files/"):
        page.meta["search"] = {"boost": 0.1}  # found behind every page of the manual
    if posixpath.dirname(uri) == "" and uri != "internals.md":
        page.meta["hide"] = ["navigation"]  # a section of one page needs no list of its pages
    return markdown if uri.startswith("files/") else redirected(uri, markdown, place=f"docs/{uri}")
