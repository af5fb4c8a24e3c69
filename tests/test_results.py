"""What stands beside a choice, and the words of what was bought: the tables against what they say they are."""

import json
import random

import numpy as np
import pandas as pd
import pytest

from outlay import results
from outlay.acquisition import neighbourhood
from outlay.measure import diversity, text
from outlay.store import Store
from outlay.study import run_study
from outlay.types import Selection
from outlay.workbench import _step, open_bench


@pytest.fixture(scope="module")
def bought(toy_run):
    return results.bought(toy_run)


def cloud(n=40, d=6, seed=0):
    return diversity.prepare(np.random.default_rng(seed).standard_normal((n, d)))


def test_a_planted_duplicate_has_similarity_1_to_the_one_bought_first_and_represents_nobody_new():
    points = cloud()
    points[7] = points[30] = points[3]
    found = neighbourhood(points, np.array([5, 7, 30]), np.array([3]))
    assert found.nearest.tolist()[1:] == [3, 3] and found.similarity[1:].tolist() == [1, 1] and found.similarity[0] < 1
    assert found.represents[1:].tolist() == [0, 0] and not any(map(len, found.examples[1:]))


def test_the_nearest_is_the_most_similar_of_what_was_bought_before_in_blocks_of_any_size(monkeypatch):
    points, picks, labeled = cloud(), np.array([9, 2, 31, 17]), np.array([4, 11])
    for block in (1024, 3):
        monkeypatch.setattr("outlay.coverage.facility.BLOCK", block)
        found = neighbourhood(points, picks, labeled)
        for place, pick in enumerate(picks):
            before = [*labeled, *picks[:place]]
            alike = points[before] @ points[pick]
            assert found.nearest[place] == before[int(alike.argmax())] and found.similarity[place] == pytest.approx(alike.max(), abs=1e-5)


def test_with_nothing_labeled_the_first_pick_has_no_neighbour_and_all_rows_are_represented_once():
    found = neighbourhood(cloud(), np.array([8, 1, 20]), np.array([], dtype=np.int64))
    assert found.nearest[0] == -1 and np.isnan(found.similarity[0]) and (found.nearest[1:] >= 0).all()
    assert found.represents.sum() == 40
    assert all(len(rows) == min(3, count - 1) for rows, count in zip(found.examples, found.represents, strict=True))


def test_every_example_is_more_similar_to_its_pick_than_to_any_other():
    points, picks = cloud(), np.array([8, 1, 20, 33])
    found = neighbourhood(points, picks, np.array([2]))
    for place, rows in enumerate(found.examples):
        assert picks[place] not in rows
        for row in rows:
            assert (points[[2, *picks]] @ points[row]).argmax() == place + 1


def test_in_a_campaign_the_nearest_was_bought_before_the_pick(toy_run, bought):
    for _, part in bought.groupby("campaign"):
        part = part.sort_values(["round", "rank"])
        ids = part["id"].tolist()
        assert part["nearest"].iloc[0] == "" and np.isnan(part["similarity"].iloc[0])
        assert all(name in ids[:place] for place, name in enumerate(part["nearest"]) if place)
        assert part["similarity"].iloc[1:].between(-1, 1).all()


def test_every_strategy_has_the_evidence_and_pays_nothing_for_it(toy_run, bought):
    random_runs = bought[bought["campaign"].str.startswith("random")]
    assert len(random_runs) and (random_runs["represents"] >= 0).all() and random_runs["score"].isna().all()
    table = pd.read_parquet(toy_run / "ledger.parquet")
    mine = table[table["campaign"].isin(random_runs["campaign"]) & (table["phase"] == "score")]
    assert mine["flops"].sum() == 0


def test_a_stored_selection_reads_back_as_it_was(toy_run):
    study = Store(toy_run).read("study.json", dict)
    folder = next(iter(study["campaigns"].values()))["folders"][0]
    selection = Store(toy_run).read(f"{folder}/selection.json", Selection)
    assert len(selection.nearest) == len(selection.examples) == len(selection.represents) == len(selection.ids)
    assert selection.nearest[0] is None and isinstance(selection.nearest[1], tuple)


# -- words -----------------------------------------------------------------------------------------------------------------


def test_prompts_are_measured_at_one_number_of_tokens_for_each_seed_and_size(toy_run):
    table = pd.read_parquet(toy_run / "results.parquet")
    table = table[table["round"] > 0]
    assert (table.groupby(["seed", "labels_spent"])["tokens_prompts"].nunique() == 1).all()
    assert table["distinct_2_prompts"].between(0, 1).all() and (table["compression_ratio_responses"] > 0).all()
    assert (table["distinct_2_prompts_random_low"] <= table["distinct_2_prompts_random_high"]).all()
    assert not [name for name in table if name.startswith("distinct_2_responses_")]


def test_any_set_of_prompts_has_the_tokens_that_it_is_measured_at(toy_run):
    bench = open_bench(str(toy_run), 0)
    texts, surely = bench.prompts(0)
    counts = [len(text.tokens(t)) for t in texts]
    for size in (1, 5, len(texts)):
        assert surely[size] == sum(sorted(counts)[:size])
    assert surely[len(texts)] == sum(counts)


def test_words_at_equal_numbers_of_tokens_do_not_grow_with_the_number_of_prompts():
    words = [f"w{i}" for i in range(300)]
    rng = random.Random(0)
    many = [" ".join(rng.choices(words, k=12)) for _ in range(800)]
    few, length = many[:100], 1000
    assert text.panel(many, length)["distinct_2"] == pytest.approx(text.panel(few, length)["distinct_2"], abs=0.03)
    assert text.panel(many, length)["compression_ratio"] == pytest.approx(text.panel(few, length)["compression_ratio"], rel=0.03)


@pytest.mark.parametrize(("words", "step"), [(0, 0), (1, 5), (3, 5), (4, 20), (15, 20), (16, 80), (70, 320)])
def test_responses_are_measured_at_a_step_that_they_have(words, step):
    assert _step([" ".join(["w"] * words)] * 5) == step


def test_a_text_measure_that_is_not_defined_is_left_out(toy_run):
    study = Store(toy_run).read("study.json", dict)
    folder = next(iter(study["campaigns"].values()))["folders"][0]
    found = json.loads((toy_run / folder / "diversity.json").read_text())
    assert set(found) == {"model", "tfidf", "words", "responses", "batch"} and set(found["batch"]) == {"model", "tfidf", "responses"}


def test_the_batch_alone_is_the_whole_in_the_first_round_and_not_later(toy_run):
    table = pd.read_parquet(toy_run / "results.parquet")
    first, later = table[table["round"] == 1], table[table["round"] > 1]
    assert np.allclose(first["batch_vendi_model"], first["vendi_model"])
    assert (later["batch_nearest_distance_model"] > later["nearest_distance_model"]).all()
    assert np.allclose(first["batch_vendi_responses"], first["vendi_responses"]) and (later["vendi_responses"] > later["batch_vendi_responses"]).all()


def test_a_batch_stands_beside_random_sets_of_its_own_size(toy_run):
    table = pd.read_parquet(toy_run / "results.parquet").query("rounds_run == 2 and round == 2")
    assert (table["batch_vendi_tfidf_random"] < table["vendi_tfidf_random"]).all()
    assert (table["batch_vendi_tfidf_random_low"] <= table["batch_vendi_tfidf_random"]).all()


# -- scores of all prompts -------------------------------------------------------------------------------------------------


def test_a_score_of_a_prompts_own_signals_is_known_of_all_prompts_and_a_gain_of_the_picks_alone(toy_study, tmp_path):
    root = run_study(toy_study(strategies=["least_confidence", "min_margin", "huds", "facility_location"], starts=["cold"]), tmp_path / "run", quiet=True)
    table = results.scores(root)
    kind = table["campaign"].str.split("-").str[0]
    assert table.groupby(kind)["all"].agg(["min", "max"]).T.to_dict("list") == {
        "facility_location": [False, False], "huds": [False, False], "least_confidence": [True, True], "min_margin": [True, True]
    }  # fmt: skip
    assert (table.groupby(["campaign", "round"])["all"].transform("size")[table["all"]] > 80).all()
    bought = results.bought(root).set_index(["campaign", "round", "id"])["score"].dropna()  # random has none
    found = table.set_index(["campaign", "round", "id"])["score"]
    assert np.allclose(found.loc[bought.index], bought)
    moves = results.changes(table, results.bought(root))
    later = moves[moves["all"] & (moves["round"] > 1)]
    assert len(later) and later["kept"].between(0, 1).all() and later["correlation"].between(-1, 1).all()


def test_a_batch_that_does_not_have_the_highest_scores_is_not_compared_with_what_comes_next():
    scored = pd.DataFrame({"id": list("abcdef") * 2, "score": [6.0, 5, 4, 3, 2, 1] * 2, "round": [1] * 6 + [2] * 6, "campaign": "c", "all": True, "prompt_length": 1, "response_length": 1})
    scored = scored[~((scored["round"] == 2) & scored["id"].isin(["a", "b"]))]
    ranked, other = (pd.DataFrame({"campaign": "c", "round": [1, 1, 2, 2], "id": list(ids)}) for ids in ("abcd", "abcf"))
    assert results.changes(scored, ranked)["kept"].tolist()[1] == 1
    assert results.changes(scored, other)["kept"].isna().all() and results.changes(scored, other)["correlation"].tolist()[1] == pytest.approx(1)
