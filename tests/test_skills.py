"""The skills world and the files of the tiny model that belong to it."""

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.resources import files

import pytest

from outlay.errors import ConfigError
from outlay.pools.skills import conversation, counts, instructions, pool_rows, pretraining_documents, test_rows
from outlay.pools.skills_world import SKILLS

TINY = files("outlay") / "models" / "tiny"
EVERYTHING = [row for side in instructions().values() for rows in side for row in rows]
ANSWERS = {row.text: row.answer for row in EVERYTHING}

# Written by hand, not by the code under test: at least one per skill.
BY_HAND = {
    "Which is larger, 7 or 28?": "28",
    "17 and 9: name the maximum.": "17",
    "Write stone backwards.": "enots",
    "Add 15 and 8.": "23",
    "Give the first letter of table.": "t",
    "Put river into upper case.": "RIVER",
    "Subtract 9 from 16.": "7",
    "Take 1 away from 20.": "19",
    "Which letter closes garden?": "n",
    "Say frog twice.": "frog frog",
    "How long is the word rabbit?": "6",
    "Split lamp into letters with hyphens.": "l-a-m-p",
    "Arrange bread from a to z.": "abder",
    "Write orange without vowels.": "rng",
    "What do 7 rows of 8 make?": "56",
    "Even or odd: 38.": "even",
    "57: odd or even?": "odd",
    "Write 99 in words.": "ninety-nine",
    "Put 40 into words.": "forty",
    "Name the number 13 in English.": "thirteen",
    "One mouse, many what?": "mice",
    "Give twice 37.": "74",
    "Not narrow but what?": "wide",
    "Not wide but what?": "narrow",
    "Give the past tense of teach.": "taught",
    "Name the capital of Norway.": "Oslo",
    "Which colour has banana?": "yellow",
    "Classify violin.": "instrument",
    "What is a baby goose called?": "gosling",
    "What follows Sunday?": "Monday",
    "Which comes after February?": "March",
}

ARITHMETIC = {  # name -> the answer from the numbers in the text
    "larger": max,
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: max(x, y) - min(x, y),
    "multiply": lambda x, y: x * y,
    "double": lambda x: x + x,
}


def test_answers_written_by_hand():
    assert {text: ANSWERS.get(text) for text in BY_HAND} == BY_HAND
    assert {row.group for row in EVERYTHING if row.text in BY_HAND} == {skill.name for skill in SKILLS}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_follows_from_the_numbers_in_the_text(name):
    for row in EVERYTHING:
        if row.group == name:
            assert int(row.answer) == ARITHMETIC[name](*map(int, re.findall(r"\d+", row.text))), row


def test_letter_answers_only_use_letters_of_the_text():
    for row in EVERYTHING:
        if row.group in ("reverse", "sort", "consonants", "spell", "first", "last"):
            assert any(not Counter(row.answer.replace("-", "")) - Counter(word) for word in re.findall(r"\w+", row.text))


def test_statements_and_instructions_agree():
    claims = {
        r"^(\w+) backwards is (\w+)\.$": "Write {} backwards.",
        r"^(\w+) from a to z: (\w+)\.$": "Order {} by the alphabet.",
        r"^the capital of (\w+) is (\w+)\.$": "Name the capital of {}.",
        r"^twice (\d+) is (\d+)\.$": "Give twice {}.",
    }
    seen = Counter()
    for document in pretraining_documents(3, 20_000):
        for pattern, instruction in claims.items():
            if found := re.match(pattern, document):
                seen[pattern] += 1
                assert ANSWERS[instruction.format(found[1])] == found[2]
    assert all(seen[pattern] for pattern in claims)


def test_instructions_are_unique_short_and_in_several_phrasings():
    assert len(ANSWERS) == len(EVERYTHING) == len({row.id for row in EVERYTHING})
    assert max(len(row.text) for row in EVERYTHING) <= 60
    assert all(1 <= len(row.answer) <= 13 for row in EVERYTHING)
    assert all(3 <= len(skill.instructions) <= 6 for skill in SKILLS)
    assert 20 <= len(SKILLS) <= 28


def test_no_pool_holds_a_test_item():
    tests = {row.text for seed in range(3) for kind in ("pool", "balanced") for row in test_rows(kind, 480, seed)}
    for seed in range(3):
        assert tests.isdisjoint(row.text for row in pool_rows(6000, "zipf", seed))
        assert tests.isdisjoint(row.text for row in pool_rows(1200, "balanced", seed))


def test_pretraining_never_sees_an_instruction():
    assert all(document.split("\n")[0].removeprefix("Q: ") not in ANSWERS for document in pretraining_documents(5, 20_000))


def test_pretraining_is_one_quarter_questions_about_one_third_of_the_skills():
    documents = list(pretraining_documents(1, 20_000))
    asked = sum(len(d) for d in documents if d.startswith("Q: ")) / sum(map(len, documents))
    assert 0.2 < asked < 0.3
    assert sum(skill.asked for skill in SKILLS) == 8


@pytest.mark.parametrize("size", [24, 100, 4000])
def test_zipf_shares_are_one_over_rank(size):
    rows = Counter(row.group for row in pool_rows(size))
    wanted = [size / rank / sum(1 / r for r in range(1, 25)) for rank in range(1, 25)]
    assert sum(rows.values()) == size
    assert all(abs(rows[skill.name] - w) < 1 for skill, w in zip(SKILLS, wanted, strict=True))


def test_balanced_shares_are_equal():
    assert set(Counter(row.group for row in test_rows("balanced", 480)).values()) == {20}
    assert set(Counter(row.group for row in pool_rows(1200, "balanced")).values()) == {50}


def test_skills_with_more_instructions_rank_higher():
    sizes = [len(skill.cases) * len(skill.instructions) for skill in SKILLS]
    assert min(sizes[:12]) > max(sizes[12:])
    assert counts(4000, "zipf") == sorted(counts(4000, "zipf"), reverse=True)


def test_rows_are_shuffled_and_seeds_differ():
    rows = pool_rows(4000)
    assert len({row.group for row in rows[:60]}) > 8
    assert rows == pool_rows(4000, seed=0) != pool_rows(4000, seed=1)
    assert {row.id for row in rows} & {row.id for row in pool_rows(4000, seed=1)}  # ids say the text, not the place


def test_equal_in_processes_with_other_hash_seeds():
    code = (
        "import hashlib; from outlay.pools.skills import *\n"
        "x = [pool_rows(500, 'zipf', 3), test_rows('balanced', 48, 1), list(pretraining_documents(2, 200))]\n"
        "print(hashlib.sha256(repr(x).encode()).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": h}, capture_output=True, text=True, check=True)
        for h in ("0", "1", "77")
    ]
    assert len({run.stdout for run in runs}) == 1


def test_impossible_requests_name_the_fix():
    with pytest.raises(ConfigError, match="ask for fewer rows"):
        pool_rows(50_000)
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        pool_rows(10, "balance")
    with pytest.raises(ConfigError, match="unknown kind of test"):
        test_rows("zipf")


@pytest.fixture(scope="module")
def tokenizer():
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(str(TINY))


def test_tokenizer_round_trips_every_text(tokenizer):
    texts = [conversation(row.text, row.answer) for row in EVERYTHING] + list(pretraining_documents(9, 2000))
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert all(tokenizer.unk_token_id not in row for row in ids)
    assert all(len(row) == len(text) for row, text in zip(ids, texts, strict=True))  # one token a character
    assert tokenizer.batch_decode(ids) == texts


def test_response_and_eos_follow_the_generation_prompt(tokenizer):
    user, reply = {"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}
    prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False)
    assert prompt + "3" + tokenizer.eos_token == tokenizer.apply_chat_template([user, reply], tokenize=False)
    assert prompt == tokenizer.bos_token + conversation("Add 1 and 2.", "")
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4


def test_the_shipped_folder_is_small():
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 8_000_000


def test_the_shipped_model_answers_what_pretraining_asked(tokenizer):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(TINY))
    assert sum(p.numel() for p in model.parameters()) <= 2_000_000
    prompts = {"What is the opposite of hot?": "cold", "Tell me stone backwards.": "enots", "Please find the capital of Norway.": "Oslo"}
    for question, answer in prompts.items():
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert tokenizer.decode(out) == answer + tokenizer.eos_token
