"""Run directory -> two flat tables, read-only: results.parquet (one row per cell, round and benchmark) and ledger.parquet (one
row per stage). Everything is derived from stage files, so the tables can be made again at any time, with other prices too."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import grid
from .campaign import Campaign
from .config import StudyConfig
from .store import Store, write_atomic
from .types import Batch, Cost, Evaluation, Model, Selection, Signals
from .workbench import EMBEDDINGS, OF_BATCH, campaign_of

SECONDS = ("seconds", "usd")  # measured, or priced by what was measured: the only columns that differ between two equal runs
WORDS = ("tokens", "distinct_1", "distinct_2", "compression_ratio")
PHASES = {"signals": "score", "batch": "annotate", "model": "train"}


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
        costs["signals"] = store.read(f"{folder}/signals.parquet", Signals).cost
    costs["batch"] = store.read(f"{folder}/batch.json", Batch).cost
    costs["model"] = store.read(f"{folder}/model.json", Model).cost
    return costs


def ledger(root: Path) -> pd.DataFrame:
    """One row per campaign, round and stage: its cost as if the campaign had run alone. `paid` marks the first campaign in grid
    order that uses the stage: the sum over paid rows is what the study consumed (the base model's shared passes are rows of
    their own, campaign ""; a campaign's share of them is never paid twice)."""
    store, study, config = _study(root)
    rows = []

    def add(campaign: str, number: int, phase: str, stage: str, cost: Cost, paid: bool) -> None:
        usd = cost.usd + cost.labels * config.prices.per_annotation + cost.seconds / 3600 * config.prices.per_device_hour
        rows.append({"campaign": campaign, "round": number, "phase": phase, "stage": stage, "paid": paid} | asdict(replace(cost, usd=usd)))

    for path in sorted((root / "shared").glob("signals-*/shard-*.parquet")):
        relative = path.relative_to(root).as_posix()
        add("", 0, "score", relative.removesuffix(".parquet"), store.read(relative, Signals).cost, True)
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
                phase = "measure" if entry["reference"] else PHASES[stage]
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


def _diversity(panel: dict, band: dict) -> dict[str, float]:
    """{"model": {"vendi": 3.1}} -> {"vendi_model": 3.1, "vendi_model_random": .., "vendi_model_random_low": .., ...}; group
    measures do not depend on the embedding and stand once (NaN where the pool has no groups). The last batch alone, and the words
    of responses, have no random sets beside them: the answers to those are not bought."""
    row = {f"group_{key}{end}": float("nan") for key in ("coverage", "entropy", "entropy_share") for end in ("", "_random", "_random_low", "_random_high")}
    for space in EMBEDDINGS:
        for key, value in panel[space].items():
            name = key if key.startswith("group_") else f"{key}_{space}"
            row[name] = value
            row[f"{name}_random"], row[f"{name}_random_low"], row[f"{name}_random_high"] = band[space][key]
    for side in ("prompts", "responses"):
        for key in WORDS:
            row[f"{key}_{side}"] = panel["words"][side].get(key, float("nan"))
            if side == "prompts" and key != "tokens":
                for end, value in zip(("", "_low", "_high"), band["words"][side].get(key, [float("nan")] * 3), strict=True):
                    row[f"{key}_{side}_random{end}"] = value
    for space in EMBEDDINGS:
        for key in OF_BATCH:
            row[f"batch_{key}_{space}"] = panel.get("batch", {}).get(space, {}).get(key, float("nan"))
    return row


def _rounds(store: Store, config: StudyConfig, entry: dict) -> list[dict[str, Any]]:
    """One row per round and benchmark of one campaign, costs cumulative."""
    campaign = campaign_of(entry)
    spent, total, updates = 0, Cost(), 0
    rows = []
    for number in range(campaign.rounds + 1):
        facts: dict[str, Any] = {}
        if number == 0:
            evaluations = [store.read(f"shared/base/evaluation-{name}.parquet", Evaluation) for name in config.evaluators]
        else:
            folder = entry["folders"][number - 1]
            model, batch = store.read(f"{folder}/model.json", Model), store.read(f"{folder}/batch.json", Batch)
            spent += batch.cost.labels
            updates = model.updates
            total = sum(_stage_costs(store, folder).values(), total)
            evaluations = [store.read(f"{folder}/evaluation-{name}.parquet", Evaluation) for name in config.evaluators]
            bought = sum(campaign.sizes[:number])
            facts = _diversity(store.read(f"{folder}/diversity.json", dict), store.read(f"shared/bands/s{campaign.seed}-n{bought}.json", dict))
        cost = asdict(total)
        del cost["labels"]
        cost["usd"] += total.labels * config.prices.per_annotation + total.seconds / 3600 * config.prices.per_device_hour
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


def overlap(table: pd.DataFrame) -> pd.DataFrame:
    """Jaccard overlap of the sets that campaigns bought, campaign x campaign, from `bought(root)`."""
    from .measure.diversity import jaccard

    sets = {name: set(ids) for name, ids in table.groupby("campaign", sort=False)["id"]}
    return pd.DataFrame({a: {b: jaccard(sets[a], sets[b]) for b in sets} for a in sets})
