"""The bridge to lm-evaluation-harness where the harness itself is not needed; tests/slow/test_lm_eval.py runs it."""

import sys

import pytest

from outlay.errors import ConfigError
from outlay.evaluation import evaluate
from outlay.evaluation.config import EvalConfig
from outlay.evaluators.lm_eval import installed, parting

from .bbh_folder import make


@pytest.mark.parametrize(
    ("response", "read", "why"),
    [
        ("So the answer is Yes.", "Yes", ""),
        ("So the answer is Yes", "Ye", "last character"),
        ("So the answer is Yes. ", "Yes.", "last character"),
        ("the answer is No. Then again, the answer is Yes.", "No. Then again, the answer is Yes", "first marker"),
        ("I do not know", "[invalid]", ""),
        ("So the answer is No", "N", ""),
    ],
)
def test_each_parting_of_the_two_scores_has_its_name(response, read, why):
    assert parting(response, "Yes", read, cot=True) == why


@pytest.mark.parametrize(("response", "why"), [("Yes", ""), (" Yes", "not stripped"), ("Yes.", "not stripped"), (" No", "")])
def test_answer_only_responses_part_by_their_blanks_and_full_stop(response, why):
    assert parting(response, "Yes", response, cot=False) == why


def test_a_harness_without_its_dependencies_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as Python marks a module that cannot be imported
    with pytest.raises(ConfigError, match=r"pip install 'outlay\[lm-eval\]'"):
        installed()


def test_a_chat_template_is_refused_before_anything_is_written(tmp_path):
    folder = make(tmp_path / "bbh")
    config = EvalConfig(model_name="tiny", bbh_dir=folder, output_dir=tmp_path / "out", tasks=("snarks",), chat=True)
    with pytest.raises(ConfigError, match="chat=false"):
        evaluate(config, "bbh", quiet=True, backend="lm-eval")
    assert not (tmp_path / "out").exists()
