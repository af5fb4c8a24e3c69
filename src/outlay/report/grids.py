"""The tables of the page: the report's numbers as words in cells."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ..results import LENGTHS
from ..workbench import EMBEDDINGS
from . import tables, words


@dataclass(frozen=True, slots=True)
class Grid:
    """A table on the page: words in cells; the CSV of the same name has the numbers. Cells under the headers `prose` may break lines."""

    name: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    prose: tuple[str, ...] = ()


def grids(results: pd.DataFrame, numbers: dict[str, pd.DataFrame]) -> dict[str, Grid]:
    """The tables of the page, in words."""
    more, summary, base = tables.varying(results), numbers["summary"], numbers["base"]
    keys = ["strategy", "m", *more]

    def key(row: pd.Series) -> list[str]:
        return [row["strategy"], words.rounds(row) if "same_as" in row else str(row["rounds"]), *(str(row[name]) for name in more)]

    accuracy = [[row["benchmark"], tables.BASE, "", *[""] * len(more), words.percent(row), "", "", str(row["items"]), row["interval"]] for _, row in base.iterrows()]
    for _, row in summary.iterrows():
        cells = [words.percent(row), words.percent(row, "difference", sign=True), str(row["seeds"]), str(row["items"]), row["interval"]]
        accuracy.append([row["benchmark"], *key(row), *cells])
    benches = list(base["benchmark"])
    accuracy.sort(key=lambda cells: benches.index(cells[0]))
    first = summary[summary["benchmark"] == summary["benchmark"].iloc[0]]
    diverse, cost = [], []
    for _, row in first.iterrows():
        cells = []
        for measure in tables.DIVERSITY:
            scale, digits = (100, 0) if measure == "group_coverage" else (1, 2)
            for name in (measure, f"{measure}_random"):
                cells.append(words.between(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=scale, digits=digits))
        diverse.append([*key(row), *cells, str(row["seeds"])])
        cost.append([*key(row), words.si(row["flops"]), words.seconds(row["seconds"]), words.usd(row["usd"]), str(row["seeds"])])
    paid = [
        [row["phase"], f"{row['labels']:,}", words.si(row["flops"]), words.seconds(row["seconds"]), words.usd(row["usd"]), *(words.si(row[f"{t}_tokens"]) for t in ("prompt", "generated", "trained"))]
        for _, row in numbers["paid"].iterrows()
    ]
    failed = [
        [row["benchmark"], row["strategy"], *("" if pd.isna(row[k]) else str(row[k]) for k in ("rounds", *more)), f"{row['answers']:,}", f"{row['unparsed']:,}", f"{row['cut_off']:,}"]
        for _, row in numbers["unparsed"].iterrows()
    ]
    failed.sort(key=lambda cells: benches.index(cells[0]))

    def dashed(value: float, digits: int = 2) -> str:
        return "–" if pd.isna(value) else f"{value:.{digits}f}"

    def between(row: pd.Series, name: str, scale: float = 1, digits: int = 2) -> str:
        return words.between(row[name], row[f"{name}_low"], row[f"{name}_high"], scale=scale, digits=digits)

    answers = [f"{measure}_responses{end}" for measure in ("vendi", "neighbour_distance", "near_duplicates") for end in ("", "_difference")]
    responses = [[*key(row), *(between(row, name) for name in answers), str(row["seeds"])] for _, row in numbers["variety"].iterrows()]
    sides = [f"{measure}_{side}" for measure in tables.VARIETY for side in ("prompts", "prompts_random", "responses", "responses_difference")]
    varied = [[*key(row), *(between(row, name) for name in sides), str(row["seeds"])] for _, row in numbers["variety"].iterrows()]
    batches = []
    for _, row in _longest(numbers["batches"]).iterrows():
        cells = [between(row, f"batch_vendi_{space}{end}") for space in EMBEDDINGS for end in ("", "_random")]
        batches.append([*key(row), str(row["round"]), *cells, between(row, "batch_vendi_responses"), str(row["seeds"])])
    chosen = []
    moves = _longest(numbers["selection"])
    for _, row in moves.dropna(how="all", subset=["correlation", *LENGTHS]).iterrows():
        cells = [between(row, "correlation"), between(row, "kept", 100, 0), dashed(100 * row["chance"], 0), between(row, "prompt_length"), between(row, "response_length")]
        chosen.append([*key(row), str(row["round"]), *cells, "all prompts" if row["all"] else "picks", str(row["seeds"])])
    agree = [
        [*key(row), str(row["round"]), f"{row['scored']:,.0f} of {row['unlabeled']:,.0f}", *(between(row, name, 100, 0) for name in ("overlap", "rank", "best_rank")), str(row["seeds"])]
        for _, row in numbers["agreement"].iterrows()
    ]
    proxied = [
        [*key(row), str(row["round"]), f"{row['sample']:,.0f} of {row['scored']:,.0f}", f"{row['picks']:,.0f}", between(row, "overlap", 100, 0), dashed(100 * row["chance"], 0), row["signal"], between(row, "correlation"), str(row["seeds"])]
        for _, row in numbers["proxy"].iterrows()
    ]
    apart = [[*key(row), str(row["pairs"]), dashed(row["jaccard"]), dashed(row["correlation"])] for _, row in numbers["seeds"].iterrows()]
    spaces = [name for measure in ("Vendi, model", "Vendi, TF-IDF", "groups, %") for name in (measure, "random sets")]
    return {
        "summary": Grid("summary", "Final accuracy in percent, and its difference to random in percentage points", ["benchmark", *keys, "accuracy, %", "minus random", "seeds", "items", "interval"], accuracy),
        "diversity": Grid("summary", "Diversity of what was bought, beside random sets of the same size", [*keys, *spaces, "seeds"], diverse),
        "cost": Grid("costs", "Cost of one campaign as if it had run alone, mean over seeds", [*keys, "FLOPs", "device time", "cost", "seeds"], cost),
        "paid": Grid("paid", "What the whole study consumed, shared work counted once", ["phase", "annotations", "FLOPs", "device time", "cost", "prompt tokens", "generated tokens", "trained tokens"], paid),
        "unparsed": Grid("unparsed", "Answers that could not be read, and answers cut off at the token limit, summed over seeds", ["benchmark", "strategy", "m", *more, "answers", "unparsed", "cut off"], failed),
        "responses": Grid("variety", "How diverse the bought responses are", [*keys, *(f"{measure}{end}" for measure in ("Vendi", "to the nearest other", "near duplicates") for end in ("", " minus random’s")), "seeds"], responses),
        "variety": Grid("variety", "How varied the words are, at equal numbers of words", [*keys, *(f"{w}, {s}" for w in ("distinct-1", "distinct-2", "compression") for s in ("prompts", "random sets", "responses", "responses minus random’s")), "seeds"], varied),
        "batches": Grid("batches", "Vendi score of each round’s batch alone, in the campaigns with the most rounds", [*keys, "round", *spaces[:4], "responses", "seeds"], batches),
        "selection": Grid("selection", "How the choice changes from round to round, and how far a score ranks by length, in the campaigns with the most rounds", [*keys, "round", "correlation with the round before", "still its choice, %", "by chance, %", "with prompt length", "with response length", "over", "seeds"], chosen),
        "agreement": Grid("agreement", "Choosing from a scored subset beside choosing from all, by the base model’s signals", [*keys, "round", "scored", "picks in common, %", "picks’ rank, %", "best rank, %", "seeds"], agree),
        "proxy": Grid("proxy", "Choosing by the proxy’s signals beside choosing by the target’s, on samples", [*keys, "round", "sample", "picks", "picks in common, %", "by chance, %", "signal", "rank correlation", "seeds"], proxied),
        "strategies": Grid("strategies", "Strategies compared", list(numbers["strategies"]), [[cell or "–" for cell in row] for row in numbers["strategies"].itertuples(index=False)], ("what it does", "source")),
        "seeds": Grid("seeds", "How much two seeds of one campaign agree", [*keys, "pairs of seeds", "overlap", "correlation of scores"], apart),
    }  # fmt: skip


def _longest(table: pd.DataFrame) -> pd.DataFrame:
    """Of each strategy the arms with the most rounds; the CSV has all."""
    return table[table["rounds"] == table.groupby("strategy")["rounds"].transform("max")]
