"""A hook of mkdocs: the site has the pages of the repository's root, too, and links lead there."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# Files of the root: where they are on the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
_UP = re.compile(r"\]\(((?:\.\./)+)(%s)" % "|".join(map(re.escape, PAGES)))


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_moved((root / name).read_text())))
    return files


def _moved(text: str) -> str:
    """A page of the root with its links as they are from docs/."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text.replace("](docs/", "](").replace("](README.md", "](index.md")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to the root's pages to where these are on the site."""
    return _UP.sub(lambda found: f"]({found[1].removeprefix('../')}{PAGES[found[2]]}", markdown)
