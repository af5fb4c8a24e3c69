"""A config is read strictly: every mistake is one line that names the key and the fix."""

import json

import pytest
import yaml

from outlay import config
from outlay.errors import ConfigError


@pytest.fixture
def write(tmp_path, toy_raw):
    """write(text) or write(key=value): the path of a config file."""

    def make(text=None, **changes):
        path = tmp_path / "study.yaml"
        path.write_text(text if text is not None else yaml.safe_dump(toy_raw | changes), encoding="utf-8")
        return path

    return make


def refused(raw, says):
    with pytest.raises(ConfigError, match=says) as caught:
        config.validate(raw)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_gets_the_near_match(toy_raw):
    refused(toy_raw | {"bugdets": [3]}, "unknown key 'bugdets'; did you mean 'budgets'")


def test_an_unknown_key_below_another_gets_the_near_match(toy_raw):
    refused(toy_raw | {"prices": {"per_anotation": 1}}, r"unknown key 'prices\.per_anotation'; did you mean 'per_annotation'")


@pytest.mark.parametrize("key", ["name", "pool", "evaluators", "strategies", "budgets"])
def test_a_missing_key_is_named_with_its_meaning(toy_raw, key):
    del toy_raw[key]
    refused(toy_raw, rf"the key '{key}' is missing \(.+\)")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("budgets", [8, 8], "same value twice"),
        ("strategies", ["random", "random"], "same value twice"),
        ("schedules", [[4, 4], [4, 4]], "same value twice"),
        ("seeds", [1, 1], "same value twice"),
        ("budgets", [0], "0 is below 1"),
        ("rounds", [2, -1], "-1 is below 1"),
        ("budgets", [], "budgets: "),
        ("seeds", 0, "seeds: "),
        ("budgets", "many", "budgets: "),
        ("schedules", ["evn"], "unknown schedule 'evn'; did you mean 'even'"),
        ("starts", ["tepid"], "starts.0: .*cold"),
        ("name", "../elsewhere", "name: "),
        ("evaluators", {"a/b": "toy"}, "evaluator name 'a/b'"),
        ("prices", {"per_annotation": -1}, "per_annotation: "),
        ("workers", 0, "workers: "),
        ("runtime", {"minibatch": 0}, "runtime.minibatch: "),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(toy_raw, key, value, says):
    refused(toy_raw | {key: value}, says)


def test_a_number_of_seeds_stands_for_that_many_seeds(toy_raw):
    assert config.validate(toy_raw | {"seeds": 3}).seeds == [0, 1, 2]


def test_rounds_and_budgets_are_sorted(toy_raw):
    study = config.validate(toy_raw | {"rounds": [4, 1], "budgets": [16, 8]})
    assert (study.rounds, study.budgets) == ([1, 4], [8, 16])


def test_json_is_read_too(write, toy_raw):
    assert config.load(write(json.dumps(toy_raw))) == config.validate(toy_raw)


def test_a_resolved_config_is_read_back_as_itself(toy_raw):
    study = config.validate(toy_raw | {"schedules": ["even", [4, 4]]})
    assert config.validate(json.loads(json.dumps(study.model_dump(mode="json")))) == study


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        config.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budgets: [1, 2", "is not valid YAML: .*line"),
        ("a: b: c", "is not valid YAML"),
        ("- a\n- b", "must be a mapping"),
        ("", "must be a mapping"),
        ("name: a\nbudgets: [1]\nname: b", "line 1: the key 'name' stands twice"),
        ("pool:\n  use: toy\n  use: file", "line 2: the key 'use' stands twice"),
    ],
)
def test_a_file_that_is_no_config_is_an_error_of_one_line(write, text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        config.load(write(text))
    assert "\n" not in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_a_file_in_another_encoding_is_named(write):
    path = write()
    path.write_bytes(b"note: f\xfcr\n")
    with pytest.raises(ConfigError, match=r"study\.yaml: byte 7 is not UTF-8"):
        config.load(path)


# -- overrides and the environment -----------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_reach_down(write):
    study = config.load(write(), ["seeds=3", "trainer.epochs=5", "prices.per_annotation=0.5", "strategies=[random]"])
    assert study.seeds == [0, 1, 2]
    assert study.trainer == {"use": "toy", "epochs": 5}
    assert study.prices.per_annotation == 0.5
    assert study.strategies == ["random"]


def test_an_override_may_hold_an_equals_sign(write):
    assert config.load(write(), ["strategies=['facility_location(width=0.2)']"]).strategies == ["facility_location(width=0.2)"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seeds", "written key=value"),
        ("=3", "written key=value"),
        ("seeds=[1,", "is not valid YAML"),
        ("model.name=x", "'model' is 'toy', it has no keys below it"),
        ("sedes=3", "did you mean 'seeds'"),
        ("prices.per_hour=3", r"unknown key 'prices\.per_hour'"),
    ],
)
def test_a_wrong_override_is_named(write, override, says):
    with pytest.raises(ConfigError, match=says):
        config.load(write(), [override])


def test_the_environment_is_put_in_at_any_depth(write, monkeypatch):
    monkeypatch.setenv("OUTLAY_TEST_SIZE", "77")
    study = config.load(write(pool={"use": "toy", "size": "${OUTLAY_TEST_SIZE}"}, note="${OUTLAY_TEST_UNSET:-none} ${OUTLAY_TEST_UNSET:-}"))
    assert study.pool == {"use": "toy", "size": "77"}
    assert study.note == "none "


def test_a_variable_that_is_not_set_is_named(write):
    with pytest.raises(ConfigError, match="needs the environment variable OUTLAY_TEST_UNSET"):
        config.load(write(note="${OUTLAY_TEST_UNSET}"))


def test_a_price_of_delay_without_days_is_refused_instead_of_costing_nothing():
    with pytest.raises(ValueError, match="set days_per_round"):
        config.Prices(per_day_of_delay=5)
    assert config.Prices(per_day_of_delay=5, days_per_round=2).days_per_round == 2
