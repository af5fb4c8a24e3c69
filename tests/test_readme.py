"""The README's file tree is true, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_names_every_source_file_and_no_other():
    tree = README[README.index("src/outlay/\n") :].split("```")[0]
    named = set(re.findall(r"^  ([\w/.]+)  ", tree, flags=re.M))
    there = {p.relative_to(ROOT / "src/outlay").as_posix() for p in (ROOT / "src/outlay").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    there = {p for p in there if not p.startswith("models/tiny/")} | {"models/tiny/"}
    assert named == there


def test_every_local_link_of_the_documentation_leads_to_a_file():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")) if "://" not in target]
    assert links
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []
