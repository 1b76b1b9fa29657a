"""A built site against itself: every link and picture leads somewhere in it, and nothing is fetched from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

_FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
_NOT_FETCHED = {"canonical", "alternate", "next", "prev"}
_AWAY = re.compile(r"(?:[a-z]+:)?//|[a-z]+:", re.I)


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.names |= {value for key in ("id", "name") if (value := held.get(key))}
        for key in ("href", "src"):
            if (target := held.get(key)) is not None:
                fetched = (tag, key) in _FETCHED and held.get("rel") not in _NOT_FETCHED
                self.links.append((target, fetched))


def problems_of(site: Path) -> list[str]:
    """What is wrong with the links of ``site``, one line each: missing pages and anchors, and things fetched from a network."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # served from anywhere: its links are of a server's root
            continue
        for target, fetched in page.links:
            if _AWAY.match(target):
                if fetched and not target.startswith("data:"):
                    found.append(f"{path.relative_to(site)} fetches {target}")
                continue
            name, _, anchor = target.partition("#")
            other = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            other = other / "index.html" if other.is_dir() else other
            if not other.exists():
                found.append(f"{path.relative_to(site)} leads to {target}, which is not there")
            elif anchor and other in pages and unquote(anchor) not in pages[other].names:
                found.append(f"{path.relative_to(site)} leads to {target}, but there is no such anchor")
    for path in sorted(site.rglob("*.css")):
        away = re.findall(r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)} fetches {target}" for target in away]
    return found
