"""Hooks of mkdocs: links out of the documentation lead to the repository."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(\]\()((?:\.\./)+[^)\s]*)(\))")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links such as ../README.md, which work in the repository, as addresses of its files."""
    folder = posixpath.dirname(page.file.src_uri)

    def outside(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[2]))
        if path.startswith("docs/") or path.startswith(".."):
            return match[0]
        return f"{match[1]}{config.repo_url}/blob/main/{path}{match[3]}"

    return _LINK.sub(outside, markdown)
