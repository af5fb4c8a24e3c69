"""What a campaign bought and trained, in the forms that other tools read: a data set folder and a model folder, each with a card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import registry
from .campaign import campaign_of
from .config import StudyConfig
from .errors import ConfigError, DataError, near
from .store import Store, write_atomic
from .types import Batch, Model

CARD = """---
{head}---

# {title}

{lead}

- study: `{study}`; campaign: `{campaign}`
- strategy `{strategy}`, {rounds} round(s), schedule {schedule}, start {start}, seed {seed}
- base model: `{model}`; pool fingerprint `{pool}` ({prompts} prompts); Outlay {version}
{rest}"""


def export(root: Path, campaign: str, out: Path, *, rounds: int | None = None, merge: bool = False) -> list[Path]:
    """Write `out/dataset` (train.jsonl in TRL's prompt-completion or preference form, README.md) and `out/model` (the weights of the last
    round, README.md), after the first `rounds` rounds where that is given. `merge`: the model whole, with its tokenizer, as another study's
    `model`. -> the two folders. Raises ConfigError for an unknown campaign, DataError where weights are not there."""
    if not (root / "study.json").exists():
        raise ConfigError(f"{root} is not a run directory (no study.json in it)")
    store = Store(root)
    study = store.read("study.json", dict)
    if campaign not in study["campaigns"]:
        raise ConfigError(f"{root} has no campaign '{campaign}'; {near(campaign, study['campaigns'])}")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another --out")
    entry = study["campaigns"][campaign]
    config = StudyConfig.model_validate(study["config"])
    folders = entry["folders"][:rounds]
    for folder in folders:
        if not (root / folder / "model.json").exists():
            raise DataError(f"campaign '{campaign}' is not finished ({folder} has no model); run the study again first")
    model = store.read(f"{folders[-1]}/model.json", Model)
    if not model.weights or not (root / model.weights).is_dir():
        raise DataError(f"the weights of '{campaign}' are not in {root}; run the study with keep_models=all")
    rows = list(_rows(root, store, folders))
    facts = _facts(root, study, entry, campaign, config)
    write_atomic(out / "dataset" / "train.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    head = "configs:\n- config_name: default\n  data_files: train.jsonl\ntags:\n- outlay\n"
    lead = f"{len(rows)} annotations that an acquisition strategy chose, in the order in which they were bought."
    texts = "`chosen`, `rejected` (drafts by the model of the round before)" if config.judgements == "preferences" else "`completion`"
    rest = f"\nColumns: `prompt`, {texts}, `id`, `group`, `round`, `rank` (within the round, most wanted first), `annotator`. The licence is that of the source data.\n"
    write_atomic(out / "dataset" / "README.md", CARD.format(head=head, title=f"Bought by {facts['strategy']}", lead=lead, rest=rest, **facts).encode())
    adapter = model.kind == "lora" and not merge
    if merge:
        _merged(replace(model, weights=str(root / model.weights)), config, out / "model")
    else:
        shutil.copytree(root / model.weights, out / "model")
    library = "peft" if adapter else "transformers"
    head = f"base_model: {config.model}\nlibrary_name: {library}\ntags:\n- outlay\n"
    lead = f"Fine-tuned on the {len(rows)} annotations of the data set beside it ({'a LoRA adapter' if adapter else 'all weights'}; the tokenizer is the base's)."
    rest = f"- trainer: `{json.dumps(config.trainer)}`; {model.updates} optimizer updates; weights hash `{model.digest}`\n"
    write_atomic(out / "model" / "README.md", CARD.format(head=head, title=f"{config.model}, fine-tuned by {facts['strategy']}", lead=lead, rest=rest, **facts).encode())
    return [out / "dataset", out / "model"]


def _merged(model: Model, config: StudyConfig, out: Path) -> None:
    """The model as a folder that can be another study's base. ConfigError for one that is no language model."""
    from .workbench import runtime_of

    if registry.parse(config.scorer)[0] != "llm":
        raise ConfigError(f"there is nothing to merge: a model of scorer '{registry.parse(config.scorer)[0]}' is no language model")
    from .engine.load import load, no_progress_bar

    loaded = load(model, runtime_of(config))
    with no_progress_bar():
        loaded.model.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)


def push(folders: list[Path], repo: str) -> list[str]:
    """Upload the two folders as the private hub repositories `repo` (model) and `repo`-data (data set); -> their addresses.

    The token is the one of `hf auth login` or HF_TOKEN; it is never read or stored here.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    dataset, model = folders
    urls = []
    try:
        for folder, kind, name in ((dataset, "dataset", f"{repo}-data"), (model, "model", repo)):
            urls.append(str(HfApi().create_repo(name, repo_type=kind, private=True, exist_ok=True)))
            HfApi().upload_folder(repo_id=name, repo_type=kind, folder_path=str(folder))
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as bad:
        raise DataError(f"could not upload to '{repo}' ({str(bad).splitlines()[0]}); run `hf auth login`, check the network, and try again: the exported folders are complete") from None
    return urls


def _rows(root: Path, store: Store, folders: Sequence[str]) -> Any:
    from . import growth, pools

    pool = pools.pool_of("pool", pools.read(growth.file(root, "pool")))
    for folder in folders:
        batch = store.read(f"{folder}/batch.json", Batch)
        prompts = pool.at(pool.rows_of(a.prompt_id for a in batch.annotations))
        for rank, (prompt, answer) in enumerate(zip(prompts, batch.annotations, strict=True), 1):
            if answer.kind != "skip":
                texts = {"completion": answer.response} if answer.kind == "response" else {"chosen": answer.chosen, "rejected": answer.rejected}
                row = {"prompt": prompt.text, **texts, "id": prompt.id, "group": prompt.group}
                yield row | {"round": answer.round, "rank": rank, "annotator": answer.annotator}


def _facts(root: Path, study: dict, entry: dict, name: str, config: StudyConfig) -> dict[str, Any]:
    campaign = campaign_of(entry)
    pool = study["pool"]
    return {
        "study": config.name, "campaign": name, "strategy": campaign.strategy, "rounds": campaign.rounds, "schedule": campaign.schedule, "start": campaign.start,
        "seed": campaign.seed, "model": config.model, "pool": pool["fingerprint"], "prompts": pool["prompts"], "version": study["outlay"],
    }  # fmt: skip
