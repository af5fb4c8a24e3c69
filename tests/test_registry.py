"""Names -> parts: specs are read strictly, mistakes name the near match."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outlay import registry
from outlay.errors import ConfigError


@pytest.fixture
def scratch(monkeypatch):
    """What a test registers is forgotten after it."""
    for kind in registry.HOMES:
        registry.cards(kind)
    monkeypatch.setattr(registry, "_REGISTRY", registry._Registry(dict(registry._REGISTRY.cards), set(registry._REGISTRY.loaded)))


@pytest.fixture
def hammer(scratch):
    @registry.register("trainer", "hammer")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Hammer:
        """Hits."""

        weight: float
        folder: Path = Path("here")
        tasks: tuple[str, ...] = ()

    return Hammer


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("random", "random", {}),
        (" random ", "random", {}),
        ("random()", "random", {}),
        ("mmr(trade_off=0.3)", "mmr", {"trade_off": 0.3}),
        ("mmr(trade_off=-1, kernel='a(b)', ids=[1, 2])", "mmr", {"trade_off": -1, "kernel": "a(b)", "ids": [1, 2]}),
        ({"use": "mmr", "trade_off": 0.3}, "mmr", {"trade_off": 0.3}),
    ],
)
def test_specs_are_read(spec, name, options):
    assert registry.parse(spec) == (name, options)


@pytest.mark.parametrize("spec", ["", "mmr(", "mmr(0.3)", "mmr(a=b)", "mmr(**{'a': 1})", "os.system(a=1)", "mmr(a=__import__('os'))", "a b", "mmr(a=1)(b=2)", "a\0b"])
def test_a_spec_that_is_not_a_name_with_literal_options_is_refused(spec):
    with pytest.raises(ConfigError, match="cannot read the spec"):
        registry.parse(spec)


def test_a_mapping_without_use_is_refused():
    with pytest.raises(ConfigError, match="needs the key 'use'"):
        registry.parse({"size": 3})


def test_an_unknown_name_gets_the_near_match():
    with pytest.raises(ConfigError, match="unknown strategy 'rndom'; did you mean 'random'"):
        registry.card("strategy", "rndom")


def test_an_unknown_name_without_a_near_match_gets_all_names():
    with pytest.raises(ConfigError, match=r"known: .*facility_location.*random"):
        registry.card("strategy", "qqqqqq")


def test_an_unknown_kind_gets_the_near_match():
    with pytest.raises(ConfigError, match="did you mean 'strategy'"):
        registry.card("strategi", "random")


def test_an_unknown_option_gets_the_near_match():
    with pytest.raises(ConfigError, match="no option 'kernl'; did you mean 'kernel'"):
        registry.build("strategy", "facility_location(kernl='rbf')")


def test_a_part_without_options_says_so():
    with pytest.raises(ConfigError, match="'random' has no option 'k'; it has no options"):
        registry.build("strategy", "random(k=3)")


def test_an_option_of_the_wrong_type_is_named_with_its_value(hammer):
    with pytest.raises(ConfigError, match="trainer 'hammer', option 'weight' = 'heavy'"):
        registry.build("trainer", {"use": "hammer", "weight": "heavy"})


def test_an_option_of_a_strategy_is_checked_too():
    with pytest.raises(ConfigError, match="strategy 'facility_location', option 'width' = 'wide'"):
        registry.build("strategy", "facility_location(width='wide')")


def test_a_missing_option_is_named(hammer):
    with pytest.raises(ConfigError, match="trainer 'hammer' needs the option 'weight'"):
        registry.build("trainer", "hammer")


def test_options_get_their_declared_types(hammer):
    made = registry.build("trainer", {"use": "hammer", "weight": "1e-3", "folder": "there", "tasks": ["a", "b"]})
    assert made == hammer(weight=0.001, folder=Path("there"), tasks=("a", "b"))


def test_what_the_program_fills_in_cannot_be_given(hammer):
    with pytest.raises(ConfigError, match="no option 'folder'"):
        registry.build("trainer", {"use": "hammer", "weight": 1, "folder": "x"}, folder=Path("y"))


def test_building_does_not_change_the_spec(hammer):
    spec = {"use": "hammer", "weight": 1}
    registry.build("trainer", spec, folder=Path("y"))
    assert spec == {"use": "hammer", "weight": 1}


def test_options_are_bound_to_a_strategy(scratch):
    @registry.strategy(source="none")
    def farthest(view, k, rng, *, power: int = 1):
        return power

    assert registry.build("strategy", "farthest(power=3)")(None, 1, np.random.default_rng(0)) == 3


def test_two_parts_of_one_name_are_refused(hammer):
    with pytest.raises(ConfigError, match="two parts of kind trainer are called 'hammer'"):
        registry.register("trainer", "hammer")(type("Other", (), {}))


def test_a_cell_of_a_notebook_may_be_run_again(scratch):
    def define(value):
        @registry.strategy(source="none")
        def mine(view, k, rng):
            return value

    define(1)
    define(2)
    assert registry.build("strategy", "mine")(None, 1, None) == 2


def test_every_part_says_what_it_is():
    silent = [(kind, card.name) for kind in registry.HOMES for card in registry.cards(kind) if len(card.summary) < 10]
    assert silent == []


VALID = {"base_url": "https://example.org/v1", "machine": "noisy"}  # of required options that are not any string


@pytest.mark.parametrize("kind", sorted(registry.HOMES))
def test_every_default_option_passes_its_own_check(kind):
    for card in registry.cards(kind):
        given = {key: value for key, value in card.options.items() if value is not dataclasses.MISSING}
        missing = {key: VALID.get(key, "x") for key, value in card.options.items() if value is dataclasses.MISSING}
        assert registry.build(kind, {"use": card.name} | given | missing) is not None


def test_a_strategy_of_another_package_is_found_by_its_entry_point(tmp_path):
    (tmp_path / "plugin.py").write_text(
        "import outlay\n\n@outlay.strategy(source='a paper')\ndef outermost(view, k, rng, *, power: int = 2):\n    'The farthest out first.'\n    return view.unlabeled[:k]\n"
    )
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[outlay.strategies]\noutermost = plugin:outermost\n")
    done = subprocess.run([sys.executable, "-m", "outlay", "list", "strategies"], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "outermost: The farthest out first." in done.stdout
    assert "    power = 2\n" in done.stdout


def test_importing_outlay_imports_no_torch():
    code = "import sys, outlay; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
