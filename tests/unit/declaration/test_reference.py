"""The tables of docs/settings.md are those of the code."""

from pathlib import Path

from roles.declaration.reference import TABLES, reference, with_reference

PAGE = Path(__file__).parents[3] / "docs/settings.md"


def test_the_page_is_current():
    text = PAGE.read_text()
    assert with_reference(text) == text, "run `make reference`"


def test_every_setting_has_a_type_a_default_and_a_meaning():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    fields = [field for _, kind in TABLES for field in kind.model_fields.values()]
    assert len(rows) == len([field for field in fields if not field.exclude])
    assert all(all(cell.strip() for cell in row.strip("|").split(" | ")) for row in rows)
