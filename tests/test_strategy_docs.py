"""docs/strategies.md is what the registry says now."""

import importlib.util
import re
from pathlib import Path

import pytest

from outlay import registry
from outlay.testing import check_strategy

ROOT = Path(__file__).parent.parent
AGAIN = "run: .venv/bin/python scripts/strategy_docs.py"


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("strategy_docs", ROOT / "scripts" / "strategy_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_registry_says(docs):
    assert docs.PAGE.read_text() == docs.page(), f"docs/strategies.md is stale; {AGAIN}"


def test_every_strategy_has_one_small_picture(docs):
    pictures = {path.stem: path for path in docs.PICTURES.iterdir()}
    assert pictures.keys() == {card.name for card in docs.cards()}, AGAIN
    for name, path in pictures.items():
        assert path.suffix == ".svg" and path.stat().st_size < 30_000, name


def test_every_picture_is_linked_and_every_link_is_there(docs):
    linked = re.findall(r"\]\((strategies/\w+\.svg)\)", docs.PAGE.read_text())
    assert len(linked) == len(set(linked)) == len(docs.cards())
    assert all((docs.DOCS / link).is_file() for link in linked)


def test_a_picture_has_the_same_bytes_every_time(docs, tmp_path):
    card = registry.card("strategy", "k_means_pp")  # it draws from a generator
    for name in "ab":
        docs.draw(card, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_example_of_the_page_keeps_the_contract(docs, monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", registry._Registry(dict(registry._REGISTRY.cards), set(registry._REGISTRY.loaded)))
    code = re.search(r"```python\n(.*?)```", docs.page(), re.DOTALL).group(1)
    names = {}
    exec(code, names)
    check_strategy(names["unsure_and_far"])
