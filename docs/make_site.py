"""Builds the documentation site into site/: the pages of docs/, the contributors' guide and the list of changes.

    python docs/make_site.py        (make docs installs what it needs first)

The pages are laid out under build/docs, where a link to a file that is no page becomes the file's path in words and
formulas become MathML, which browsers draw by themselves. Then zensical renders them; unknown references are errors. It
looks at links between pages only, so every link and anchor of the rendered pages is followed here as well, and what a
reader's browser would fetch from elsewhere is an error.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
LAID_OUT = ROOT / "build" / "docs"
SITE = ROOT / "site"
ASSETS = (".svg", ".png", ".css")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(`+[^`]+`+)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(?=\S)([^$\n]+?)(?<=\S)\$", re.DOTALL)
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
FETCHED_RELATIONS = {"stylesheet", "preload", "icon", "preconnect", "modulepreload"}


class BrokenSite(Exception):
    """The pages do not hold together; each line says where and what."""


def sources() -> dict[str, str]:
    """Path in the repository to path in the site, of every page and what stands in pages."""
    found = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", *ASSETS):
            found[path.relative_to(ROOT).as_posix()] = path.relative_to(ROOT / "docs").as_posix()
    return found


def lay_out(places: dict[str, str]) -> None:
    """Write the pages as the site has them.

    Raises:
        BrokenSite: a link leads to nothing in the repository, or the navigation and the pages differ.
    """
    shutil.rmtree(LAID_OUT, ignore_errors=True)
    wrong = list(off_the_map(places))
    for source, place in places.items():
        target = LAID_OUT / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(page(source, places, wrong), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    if wrong:
        raise BrokenSite("\n".join(wrong))


def off_the_map(places: dict[str, str]) -> Iterator[str]:
    """Pages that the navigation does not have, and entries of it that are no page."""
    named = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = [place for place in places.values() if place.endswith(".md")]
    yield from (f"mkdocs.yml: nav has no entry for {place}" for place in pages if place not in named)
    yield from (f"mkdocs.yml: nav names {place}, which is no page" for place in named if place not in pages)


def leaves(tree: object) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, list | dict):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def page(source: str, places: dict[str, str], wrong: list[str]) -> str:
    """A page's text with its links as the site needs them; what leads nowhere is added to ``wrong``."""

    def moved(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        if "://" in target or target.startswith(("#", "mailto:")):
            return link[0]
        file, _, anchor = target.partition("#")
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
        if meant in places:
            here = posixpath.dirname(places[source])
            return f"[{words}]({posixpath.relpath(places[meant], here or '.')}{'#' * bool(anchor)}{anchor})"
        if not (ROOT / meant).exists():
            wrong.append(f"{source}: {target} leads nowhere")
        return f"`{meant}`" if words.strip("`") in (meant, posixpath.basename(meant)) else f"{words} (`{meant}`)"

    parts = FENCE.split((ROOT / source).read_text(encoding="utf-8"))
    return "".join(part if part.lstrip().startswith("```") else formulas(LINK.sub(moved, part)) for part in parts)


def formulas(text: str) -> str:
    """A text with its LaTeX, as `$...$` and `$$...$$` outside of code, as MathML."""
    parts = CODE.split(text)
    return "".join(part if part.startswith("`") else FORMULA.sub(_mathml, part) for part in parts)


def _mathml(formula: re.Match[str]) -> str:
    markup = convert(formula[1] or formula[2], display="block" if formula[1] else "inline")
    for sign in "*_|[]":  # signs that Markdown would read
        markup = markup.replace(sign, f"&#{ord(sign)};")
    # Markdown takes a line that begins with <math> for a block of its own
    return markup if formula[1] else f"<span>{markup}</span>"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        fetches = tag == "link" and bool(FETCHED_RELATIONS & set(given.get("rel", "").split()))
        for name in ("href", "src"):
            if name in given:
                (self.fetched if fetches or (tag, name) in FETCHED else self.links).append(given[name])


def follow(site: Path) -> Iterator[str]:
    """What is wrong with rendered pages: each link that leads to no file or heading, and what is fetched elsewhere."""
    read = {}
    for path in sorted(site.rglob("*.html")):
        read[path] = _Reader()
        read[path].feed(path.read_text(encoding="utf-8"))
    for path, reader in read.items():
        where = path.relative_to(site)
        for link in reader.links + reader.fetched:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                if link in reader.fetched and address.scheme != "data":
                    yield f"{where}: would fetch {link} from elsewhere"
                continue
            target = _target(site, path, unquote(address.path))
            if not target.is_file():
                yield f"{where}: {link} leads to no file"
            elif address.fragment and target in read and unquote(address.fragment) not in read[target].anchors:
                yield f"{where}: {link} leads to no heading"


def _target(site: Path, page: Path, path: str) -> Path:
    """The file that a path in a link means."""
    if not path:
        return page
    found = site / path[1:] if path.startswith("/") else page.parent / path
    found = Path(os.path.normpath(found))
    return found / "index.html" if found.is_dir() else found


def build() -> None:
    """Lay out, render, follow."""
    lay_out(sources())
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=True)
    wrong = list(follow(SITE))
    if wrong:
        raise BrokenSite("\n".join(wrong))


if __name__ == "__main__":
    try:
        build()
    except BrokenSite as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    print(f"{SITE.relative_to(ROOT)}/index.html")
