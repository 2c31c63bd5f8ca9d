"""The docs lead to what is there: links, anchors, paths, the picture, and the site's table."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.unit.docs.pages import PAGES, ROOT, Block, anchors, inline, links

README = ROOT / "README.md"
FOLDERS = ("roles", "tests", "docs", "deploys", "inventories", "templates", "examples", ".github")
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./@-]*")
# Commands and people write these; or a name stands for any.
WRITTEN = re.compile(
    r"inventories/(hardware|plans|known_hosts|models)/[\w.]*|.*(KIND|NAME|/X\.).*|.*\blab\.yaml"
)
PATHS = [one for one in inline() if PATH.fullmatch(one.text) and not WRITTEN.fullmatch(one.text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in links(page):
        assert not link.startswith(("http://", "/")), link
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert link.startswith("https://") or file.is_file(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path}-{path.text}")
def test_paths_exist(path: Block):
    assert (ROOT / path.text).exists()


def test_paths_are_found():
    assert len(PATHS) > 50


def test_the_readme_is_short_and_lists_its_contents():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    headings = set(re.findall(r"^## .*", text, re.MULTILINE))
    own = {link.removeprefix("#") for link in links(README) if link.startswith("#")}
    assert len(headings) == len(own) and own <= anchors(README)


def test_every_page_is_on_the_site_and_reached_from_the_readme_or_the_index():
    text = (ROOT / "mkdocs.yml").read_text()
    on_site = set(re.findall(r": ([\w./-]+\.md)$", text, re.MULTILINE))
    pages = {
        str(page.relative_to(ROOT / "docs")) for page in PAGES if ROOT / "docs" in page.parents
    }
    assert pages <= on_site
    reached = set(links(README)) | {f"docs/{link}" for link in links(ROOT / "docs/index.md")}
    records = {name for name in pages if name.startswith("decisions/")}
    assert {f"docs/{name}" for name in pages - records - {"index.md"}} <= {
        link.partition("#")[0] for link in reached
    }
    index = set(links(ROOT / "docs/decisions/index.md"))
    assert {Path(name).name for name in records} - {"index.md"} <= index


def test_records_are_short():
    for page in (ROOT / "docs/decisions").glob("*.md"):
        assert len(page.read_text().splitlines()) < 40, page
        if page.name != "index.md":
            headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
            assert headings == ["Context", "Decision", "Consequences"], page


def test_the_picture_is_whole_and_stands_alone():
    text = (ROOT / "docs/flow.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    tags = {element.tag.partition("}")[2] for element in root.iter()}
    assert not tags & {"script", "image", "foreignObject", "use"}
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"@import|@font-face|url\((?!#)|href=", text)


def test_the_site_loads_nothing_from_others():
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]
    assert theme["name"] == "mkdocs" and theme["highlightjs"] is False
