"""Check a built site: ``python docs/tools/check_site.py site``. Nothing in it loads from another address.

Links to read on may lead anywhere; scripts, styles, fonts, images, frames and requests may not.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}
ELSEWHERE = re.compile(r"(https?:)?//", re.IGNORECASE)
IN_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)


class Loads(HTMLParser):
    """The addresses that a page loads by itself, and not from this site."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and set(values.get("rel", "").split()) <= NOT_LOADED:
            return
        address = values.get(LOADING.get(tag, ""), "")
        self.found += [address] if ELSEWHERE.match(address) else []
        self.found += IN_CSS.findall(values.get("style", ""))


def foreign(path: Path) -> list[str]:
    """What one file of the site loads from elsewhere."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return IN_CSS.findall(text)
    page = Loads()
    page.feed(text)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    return page.found + [address for style in styles for address in IN_CSS.findall(style)]


def main(site: Path) -> int:
    """Print what is wrong and return the exit status."""
    files = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    wrong = [f"{path.relative_to(site)} loads {address}" for path in files for address in foreign(path)]
    print("\n".join(wrong) or f"{len(files)} pages and styles, nothing loaded from elsewhere")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
