"""MMLU and FLAN questions."""

import csv

import pytest

from outlay.errors import ConfigError, DataError
from outlay.evaluators.flan import flan
from outlay.evaluators.mmlu import SUBJECTS, mmlu, read_csv, style_for

ROWS = [["Which?", "one", "None", "a, b", "two\nlines", "1"], ["What?", "n", "o", "p", "q", "3"]]


def write(file, rows, header=True):
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["question", "choice0", "choice1", "choice2", "choice3", "answer"], *rows] if header else rows)
    return file


@pytest.fixture
def folder(tmp_path):
    for subject in ("anatomy", "virology"):
        write(tmp_path / f"dev/{subject}_dev.csv", [[f"Example {n}?", "w", "x", "y", "z", str(n % 4)] for n in range(5)])
        write(tmp_path / f"test/{subject}_test.csv", ROWS)
    return tmp_path


def test_all_of_mmlu_is_there(outlay_data):
    bench = mmlu(style="letter", folder=outlay_data / "mmlu")
    assert (len(bench.tasks), len(bench.items)) == (57, 14042)
    targets = [i.target for i in bench.items]
    assert [targets.count(letter) for letter in "ABCD"] == [3222, 3462, 3582, 3776]
    assert all(choice.strip() for i in mmlu(style="cloze", folder=outlay_data / "mmlu").items for choice in i.choices)


def test_letter_prompts_show_five_examples_and_all_choices(folder):
    item = mmlu(style="letter", folder=folder, tasks=("anatomy",)).items[0]
    assert item.prompt.startswith("The following are multiple choice questions (with answers) about anatomy.\n\nExample 0?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\n")
    assert item.prompt.endswith("\nAnswer: A\n\nWhich?\nA. one\nB. None\nC. a, b\nD. two\nlines\nAnswer:")
    assert item.prompt.count("Example") == 5
    assert (item.choices, item.target) == ((" A", " B", " C", " D"), "B")


def test_cloze_prompts_show_no_choices(folder):
    item = mmlu(style="cloze", folder=folder, tasks=("anatomy",), shots=1).items[0]
    assert item.prompt == "Question: Example 0?\nAnswer: w\n\nQuestion: Which?\nAnswer:"
    assert item.choices == (" one", " None", " a, b", " two\nlines")


def test_files_of_the_authors_and_of_the_hub_hold_the_same(tmp_path):
    hub = read_csv(write(tmp_path / "hub.csv", ROWS))
    authors = read_csv(write(tmp_path / "authors.csv", [[*row[:5], "ABCD"[int(row[5])]] for row in ROWS], header=False))
    assert hub == authors
    assert [q.answer for q in hub] == [1, 3]


@pytest.mark.parametrize(("row", "says"), [(["a", "b", "c", "d", "e"], "row 2: 5 fields"), (["a", "b", "c", "d", "e", "E"], "row 2: the answer is 'E'"), (["a", "b", "", "d", "e", "1"], "row 2: the question or a choice is empty")])
def test_a_malformed_row_is_named(tmp_path, row, says):
    with pytest.raises(DataError, match=f"x.csv, {says}"):
        read_csv(write(tmp_path / "x.csv", [ROWS[0], row]))


def test_missing_subjects_are_named(folder):
    with pytest.raises(DataError, match=r"lacks 110 of 114 files: dev/abstract_algebra_dev\.csv"):
        mmlu(style="letter", folder=folder)
    with pytest.raises(DataError, match="does not exist"):
        mmlu(style="letter", folder=folder / "nowhere")


def test_an_unknown_subject_names_the_near_match(folder):
    with pytest.raises(ConfigError, match="did you mean 'virology'"):
        mmlu(style="letter", folder=folder, tasks=("virolgy",))


def test_more_shots_than_dev_questions_is_an_error(folder):
    with pytest.raises(ConfigError, match="shots = 6, and subject anatomy has 5 dev questions"):
        mmlu(style="letter", folder=folder, tasks=("anatomy",), shots=6)


def test_small_models_get_cloze_and_large_ones_letters_with_a_reason():
    assert style_for(106_000_000) == ("cloze", style_for(106_000_000)[1])
    assert "0.11 billion" in style_for(106_000_000)[1]
    assert style_for(7_000_000_000)[0] == "letter"


def test_without_data_it_says_what_to_download(monkeypatch):
    monkeypatch.delenv("OUTLAY_DATA", raising=False)
    with pytest.raises(DataError, match=r"MMLU is not at hand.*download"):
        mmlu(style="letter", tasks=(SUBJECTS[0],))


def test_flan_examples_are_never_asked_and_traps_of_the_format_are_read_right(tmp_path):
    rows = [f'"Is {n}\\nodd?"\u2028\t{"yes" if n % 2 else "no"}\tIt is {n}.' for n in range(8)]
    (tmp_path / "creak_train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")
    bench = flan(file=tmp_path / "creak_train.tsv")
    items = bench.tasks["creak"]
    assert len(items) == 5
    for item in items:
        assert item.question == f'"Is {item.id[-1]}\nodd?"'
        assert item.prompt.count(item.question) == 1
        assert item.prompt.count("So the answer is") == 3
        assert item.target == ("yes" if int(item.id[-1]) % 2 else "no")
    direct = flan(file=tmp_path, cot=False, shots=1)
    assert direct.answers == "direct"
    assert "It is" not in direct.items[0].prompt


def test_flan_has_all_rows_but_the_examples(outlay_data):
    bench = flan(file=outlay_data / "flan_v2_cot")
    assert len(bench.tasks) == 7
    assert 33_443 - 3 * 7 - 1 <= len(bench.items) <= 33_443 - 3 * 7
    assert all(item.question and item.target for item in bench.items)


def test_flan_without_a_file_says_what_to_download(tmp_path, monkeypatch):
    monkeypatch.delenv("OUTLAY_DATA", raising=False)
    with pytest.raises(DataError, match="flan_file"):
        flan()
    with pytest.raises(DataError, match="google-research/FLAN"):
        flan(file=tmp_path)
