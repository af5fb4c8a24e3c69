"""Run directory -> two flat tables, read-only: results.parquet (one row per cell, round and benchmark) and ledger.parquet (one
row per stage). Everything is derived from stage files, so the tables can be made again at any time, with other prices too."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import grid, registry
from .acquisition import scores_of
from .campaign import Campaign, campaign_of
from .config import Prices, StudyConfig
from .measure import diversity, dynamics
from .proxy import pays_for_every_training
from .store import Store, write_atomic
from .types import Batch, Cost, Evaluation, Indices, Model, Selection, Signals, View
from .workbench import EMBEDDINGS, Workbench

SECONDS = ("seconds", "usd")  # measured, or priced by what was measured: the only columns that differ between two equal runs
WORDS = ("tokens", "distinct_1", "distinct_2", "compression_ratio")
LENGTHS = {"prompt_length": "prompt_tokens", "response_length": "response_tokens"}
PHASES = {"signals": "score", "pairs": "score", "pairs-again": "score", "proxy-model": "train", "batch": "annotate", "model": "train", "proxy-agreement": "measure", "shadow": "measure"}


def write(root: Path) -> None:
    """Make both tables of a run and put them into its folder."""
    for name, table in (("results", results(root)), ("ledger", ledger(root))):
        sink = io.BytesIO()
        table.to_parquet(sink, index=False)
        write_atomic(root / f"{name}.parquet", sink.getvalue())


def _study(root: Path) -> tuple[Store, dict, StudyConfig]:
    store = Store(root)
    study = store.read("study.json", dict)
    return store, study, StudyConfig.model_validate(study["config"])


def _stage_costs(store: Store, folder: str) -> dict[str, Cost]:
    """What the stages of one round consumed. A strategy without signals has no signals stage."""
    costs = {}
    if (store.root / folder / "signals.parquet").exists():
        costs["signals"] = store.scalars(f"{folder}/signals.parquet").cost
    for stage in ("pairs", "pairs-again", "proxy-model", "proxy-agreement", "shadow"):
        if (store.root / folder / f"{stage}.json").exists():
            costs[stage] = store.cost(f"{folder}/{stage}.json")
    costs["batch"] = store.read(f"{folder}/batch.json", Batch).cost
    costs["model"] = store.read(f"{folder}/model.json", Model).cost
    return costs


def _priced(cost: Cost, prices: Prices) -> Cost:
    """With annotations and device time in its dollars."""
    return replace(cost, usd=prices.usd(cost))


def ledger(root: Path) -> pd.DataFrame:
    """One row per campaign, round and stage: its cost as if the campaign had run alone. `paid` marks the first campaign in grid
    order that uses the stage: the sum over paid rows is what the study consumed (the base model's shared passes are rows of
    their own, campaign ""; a campaign's share of them is never paid twice)."""
    store, study, config = _study(root)
    rows = []

    def add(campaign: str, number: int, phase: str, stage: str, cost: Cost, paid: bool) -> None:
        rows.append({"campaign": campaign, "round": number, "phase": phase, "stage": stage, "paid": paid} | asdict(_priced(cost, config.prices)))

    for path in [*sorted((root / "shared").glob("signals-*/shard-*.parquet")), *sorted((root / "shared").glob("space/shard-*.parquet"))]:
        relative = path.relative_to(root).as_posix()
        add("", 0, "measure" if path.parent.name == "space" else "score", relative.removesuffix(".parquet"), store.scalars(relative).cost, True)
    for name in config.evaluators:
        path = f"shared/base/evaluation-{name}.parquet"
        add("", 0, "measure", path.removesuffix(".parquet"), store.read(path, Evaluation).cost, True)
    seen: set[str] = set()
    for name, entry in study["campaigns"].items():
        for number, folder in enumerate(entry["folders"], 1):
            first = folder not in seen
            seen.add(folder)
            for stage, cost in _stage_costs(store, folder).items():
                from_base = stage == "signals" and number == 1
                measured = entry["reference"] or (stage == "model" and number < len(entry["folders"]) and not pays_for_every_training(config.proxy, entry["start"]))
                phase = "measure" if measured else PHASES[stage]
                add(name, number, phase, stage, cost, first and not from_base)
            for bench in config.evaluators:
                add(name, number, "measure", f"evaluation-{bench}", store.read(f"{folder}/evaluation-{bench}.parquet", Evaluation).cost, first)
    return pd.DataFrame(rows)


def _bench(evaluation: Evaluation) -> dict[str, Any]:
    columns = evaluation.columns
    row = {"benchmark": evaluation.benchmark, "n_items": len(columns["correct"]), "accuracy": float(np.mean(columns["correct"]))}
    row["nll"] = float(np.mean(columns["nll"])) if "nll" in columns else float("nan")
    row["unparsed"] = int(np.sum(~columns["parsed"])) if "parsed" in columns else 0
    row["cut_off"] = int(np.sum(columns["cut_off"])) if "cut_off" in columns else 0
    return row


def _diversity(panel: dict, band: dict, batch_band: dict) -> dict[str, float]:
    """{"model": {"vendi": 3.1}} -> {"vendi_model": 3.1, "vendi_model_random": .., "vendi_model_random_low": .., ...}; group
    measures do not depend on the embedding and stand once. The same of the last batch alone as "batch_...". Responses have no random
    sets beside them: the answers to those are not bought. NaN where there is nothing to measure (no groups, one row)."""
    row: dict[str, float] = {}
    for prefix, found, sets in (("", panel, band), ("batch_", panel.get("batch", {}), batch_band)):
        for space in EMBEDDINGS:
            for key in (*diversity.OF_GROUPS, *diversity.MEASURES):
                name = prefix + (key if key in diversity.OF_GROUPS else f"{key}_{space}")
                row[name] = found.get(space, {}).get(key, math.nan)
                row |= _beside(name, sets[space].get(key))
        for key in diversity.AMONG:
            row[f"{prefix}{key}_responses"] = found.get("responses", {}).get(key, math.nan)
    for side in ("prompts", "responses"):
        for key in WORDS:
            row[f"{key}_{side}"] = panel["words"][side].get(key, math.nan)
            if side == "prompts" and key != "tokens":
                row |= _beside(f"{key}_{side}", band["words"][side].get(key))
    return row


def _beside(name: str, band: Sequence[float] | None) -> dict[str, float]:
    """Mean, 2.5 and 97.5 percentiles of random sets of the same size."""
    return dict(zip((f"{name}_random", f"{name}_random_low", f"{name}_random_high"), band or [math.nan] * 3, strict=True))


def _rounds(store: Store, config: StudyConfig, entry: dict) -> list[dict[str, Any]]:
    """One row per round and benchmark of one campaign, costs cumulative."""
    campaign = campaign_of(entry)
    spent, total, updates = 0, Cost(), 0
    here, rows = total, []  # what a campaign that ends here has cost
    for number in range(campaign.rounds + 1):
        facts: dict[str, Any] = {}
        if number == 0:
            evaluations = [store.read(f"shared/base/evaluation-{name}.parquet", Evaluation) for name in config.evaluators]
        else:
            folder = entry["folders"][number - 1]
            model, batch = store.read(f"{folder}/model.json", Model), store.read(f"{folder}/batch.json", Batch)
            spent += batch.cost.labels
            updates = model.updates
            costs = {stage: cost for stage, cost in _stage_costs(store, folder).items() if PHASES[stage] != "measure"}
            trained = costs.pop("model")
            total = sum(costs.values(), total)
            here = total + trained
            if pays_for_every_training(config.proxy, campaign.start):
                total = here
            evaluations = [store.read(f"{folder}/evaluation-{name}.parquet", Evaluation) for name in config.evaluators]
            sizes = (sum(campaign.sizes[:number]), campaign.sizes[number - 1])
            facts = _diversity(store.read(f"{folder}/diversity.json", dict), *(store.read(f"shared/bands/s{campaign.seed}-n{size}.json", dict) for size in sizes))
        cost = asdict(_priced(here, config.prices))
        del cost["labels"]
        for evaluation in evaluations:
            rows.append({"round": number, "labels_spent": spent} | _bench(evaluation) | {"updates": updates} | facts | cost)
    return rows


def _key(cell: Campaign, run: Campaign) -> dict[str, Any]:
    plan = cell.schedule if isinstance(cell.schedule, str) else "-".join(map(str, cell.schedule))
    return {
        "campaign": run.id, "strategy": cell.strategy, "rounds": cell.rounds, "rounds_run": run.rounds, "schedule": plan,
        "start": cell.start, "seed": cell.seed, "budget": cell.budget, "reference": run.reference,
    }  # fmt: skip


def results(root: Path) -> pd.DataFrame:
    """One row per cell that was asked for, round and benchmark. Cells that are the same run (more rounds would change nothing,
    see `rounds_run`) repeat its rows under the same `campaign`: use each campaign once in statistics."""
    store, study, config = _study(root)
    cells = [(cell, grid.runs_as(cell, config)) for cell in grid.asked(config)] + [(c, c) for c in grid.references(config)]
    cache: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for cell, run in cells:
        if run.id not in cache:
            cache[run.id] = _rounds(store, config, study["campaigns"][run.id])
        rows += [_key(cell, run) | row for row in cache[run.id]]
    return pd.DataFrame(rows)


def per_item(root: Path, *columns: str) -> list[dict[tuple[str, str], np.ndarray]]:
    """For each column, (campaign, benchmark) -> (n_items,) how each item went after the last round, in the order of the test; without
    reference points, and without evaluations that do not have the column. Every evaluation is read once."""
    store, study, config = _study(root)
    found: list[dict[tuple[str, str], np.ndarray]] = [{} for _ in columns]
    for name, entry in study["campaigns"].items():
        for bench in config.evaluators if not entry["reference"] else ():
            there = store.read(f"{entry['folders'][-1]}/evaluation-{bench}.parquet", Evaluation).columns
            for column, table in zip(columns, found, strict=True):
                if column in there:
                    table[name, bench] = np.asarray(there[column], dtype=np.float64)
    return found


def bought(root: Path) -> pd.DataFrame:
    """One row per chosen prompt of every campaign: campaign, round, rank (from 1), id, group, text, score (NaN where the strategy has
    none), nearest (id of the most similar prompt bought before, "" for the first), similarity (their cosine), represents (pool
    prompts whose most similar bought one this is) and examples of those (ids)."""
    from . import pools

    store, study, _ = _study(root)
    pool = pools.pool_of("pool", pools.read(root / "shared/pool.parquet"))
    rows = []
    for name, entry in study["campaigns"].items():
        for number, folder in enumerate(entry["folders"], 1):
            selection = store.read(f"{folder}/selection.json", Selection)
            for rank, prompt in enumerate(pool.at(pool.rows_of(selection.ids))):
                row = {"campaign": name, "round": number, "rank": rank + 1, "id": prompt.id, "group": prompt.group, "text": prompt.text}
                row["score"] = selection.scores[rank] if selection.scores else np.nan
                row["nearest"], row["similarity"] = (selection.nearest[rank] if selection.nearest else None) or ("", np.nan)
                row["represents"] = selection.represents[rank] if selection.represents else -1
                row["examples"] = " ".join(selection.examples[rank]) if selection.examples else ""
                rows.append(row)
    return pd.DataFrame(rows)


def scores(root: Path) -> pd.DataFrame:
    """One row per prompt with a score, round and campaign that was asked for: campaign, round, id, score (highest wanted most),
    prompt_length, response_length (tokens; of the model's own response in that round, 0 where it wrote none), all.

    `all`: every prompt that could be bought has it. A score that depends on what was picked before (a gain) is there for the picks
    alone.
    """
    store, study, config = _study(root)
    bench, parts = Workbench(store, study, config), []
    for name, entry in study["campaigns"].items():
        card = registry.card("strategy", registry.parse(entry["strategy"])[0])
        if entry["reference"] or card.score is None:
            continue
        pool = bench.pool().take(bench.rows(entry["seed"]))
        ids, lengths = np.array(pool.ids, dtype=object), {}
        for number, folder in enumerate(entry["folders"], 1):
            columns: dict[str, np.ndarray] = {}
            if (root / folder / "signals.parquet").exists():  # frozen signals are read once: the first round's lengths hold
                columns = dict(store.scalars(f"{folder}/signals.parquet").columns)
                lengths = {to: columns[count] for to, count in LENGTHS.items()}
            selection = store.read(f"{folder}/selection.json", Selection)
            rows, values, whole = _scored(entry["strategy"], card, columns, pool.rows_of(selection.ids), np.array(selection.scores))
            facts = {"campaign": name, "round": number, "id": ids[rows], "score": values, "all": whole}
            parts.append(pd.DataFrame(facts | {to: found[rows] for to, found in lengths.items()}))
    columns = ["campaign", "round", "id", "score", "all", *LENGTHS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _scored(spec: str, card: registry.Card, columns: dict[str, np.ndarray], picks: Indices, values: np.ndarray) -> tuple[Indices, np.ndarray, bool]:
    """(rows, their scores, True) of all that could be bought, where a prompt's score needs its own stored signals only and agrees with
    what was recorded of the picks; else the picks with what was recorded, and False."""
    known = {name: columns[name] for name in card.needs if name in columns and columns[name].ndim == 1}
    if known and not card.of_labeled and (isinstance(card.score, str) or known.keys() == card.needs):
        rows = np.flatnonzero(np.logical_and.reduce([np.isfinite(v) for v in known.values()]))
        n = len(next(iter(known.values())))
        view = View(Signals(known), rows, np.empty(0, dtype=np.int64), np.zeros(n, dtype="<U1"), np.zeros(n))
        found = scores_of(card, view, rows, getattr(registry.build("strategy", spec), "keywords", {}))
        if np.allclose(found[np.searchsorted(rows, picks)], values):
            return rows, found, True
    return picks, values, False


def changes(scored: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """One row per campaign and round, of `scores(root)` and `bought(root)`: how far its score follows the lengths (rank correlations
    prompt_length, response_length, over `scored` prompts) and, from round 2 on, the rank correlation with the score of the round before
    and, where the highest scores are what is bought, the share of the batch that the round before's model would have taken next
    (`kept`; `chance` for a random batch)."""
    rows = []
    batches = {key: list(ids) for key, ids in chosen.groupby(["campaign", "round"])["id"]}
    for name, part in scored.groupby("campaign", sort=False):
        earlier = None
        for number, table in part.groupby("round"):
            table = table.set_index("id")
            row = {"campaign": name, "round": number, "all": bool(table["all"].iloc[0]), "scored": len(table)}
            row |= dynamics.length_correlation(table[["score"]], table[list(LENGTHS)]).loc["score"].to_dict()
            row |= dict.fromkeys(("correlation", "kept", "chance"), np.nan)
            if earlier is not None and row["all"]:
                both = part[part["round"].isin([number - 1, number])]
                row["correlation"] = dynamics.rank_correlation(both, "round").loc[number - 1, number]
                known = earlier["score"].index.isin(batches[name, number]).sum() == len(batches[name, number])  # else a subset was scored then
                if known and _ranks(earlier["score"], batches[name, number - 1]) and _ranks(table["score"], batches[name, number]):
                    change = dynamics.change(earlier["score"], batches[name, number - 1], batches[name, number])
                    row |= {"kept": change.kept, "chance": change.chance}
            rows.append(row)
            earlier = table
    return pd.DataFrame(rows, columns=["campaign", "round", "all", "scored", *LENGTHS, "correlation", "kept", "chance"])


def _ranks(scored: pd.Series, batch: list[str]) -> bool:
    """Whether the batch has the highest scores: then the score alone says what would be taken next."""
    return scored.drop(batch).max() <= scored[batch].min()


def agreements(root: Path) -> pd.DataFrame:
    """One row per campaign and round in which a subset of the prompts was scored: campaign, round and the keys of agreement.json (see
    `outlay.subset.agreement`). Empty where every round scored all."""
    store, study, _ = _study(root)
    rows = []
    for name, entry in study["campaigns"].items():
        for number, folder in enumerate(entry["folders"], 1):
            if (root / folder / "agreement.json").exists():
                rows.append({"campaign": name, "round": number} | store.read(f"{folder}/agreement.json", dict))
    return pd.DataFrame(rows, columns=["campaign", "round", "scored", "unlabeled", "overlap", "rank", "best_rank"])


def proxies(root: Path) -> pd.DataFrame:
    """One row per campaign, round and signal that a proxy gave: campaign, round, signal, its correlation, and the other keys of
    proxy-agreement.json (see `outlay.proxy.agreement`). Empty without a proxy."""
    store, study, _ = _study(root)
    names = ["sample", "scored", "picks", "overlap", "chance"]
    rows = []
    for name, entry in study["campaigns"].items():
        for number, folder in enumerate(entry["folders"], 1):
            if (root / folder / "proxy-agreement.json").exists():
                found = store.read(f"{folder}/proxy-agreement.json", dict)
                for signal, value in found["correlation"].items():
                    rows.append({"campaign": name, "round": number, "signal": signal} | {key: found[key] for key in names} | {"correlation": value})
    return pd.DataFrame(rows, columns=["campaign", "round", "signal", *names, "correlation"])


def overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Jaccard overlap of the sets that campaigns bought, campaign x campaign, from `bought(root)`."""
    from .measure.diversity import jaccard

    sets = {name: set(ids) for name, ids in table.groupby("campaign", sort=False)["id"]}
    return pd.DataFrame({a: {b: jaccard(sets[a], sets[b]) for b in sets} for a in sets})
