"""A study's grid -> the campaigns that are run, and which stage folders they share. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product

from . import registry
from .campaign import Campaign, campaign_of
from .config import StudyConfig
from .errors import ConfigError
from .types import POOL_SIGNALS


def asked(config: StudyConfig) -> list[Campaign]:
    """Every cell of the grid, in grid order."""
    cells = []
    for budget, strategy, schedule, start, m, seed in product(config.budgets, config.strategies, config.schedules, config.starts, config.rounds, config.seeds):
        if isinstance(schedule, list) and len(schedule) != m:
            continue  # an explicit schedule belongs to its own number of rounds
        plan = tuple(schedule) if isinstance(schedule, list) else schedule
        cells.append(Campaign(strategy, m, budget, seed, plan, start))
    if not cells:
        raise ConfigError(f"no cell in the grid: the explicit schedules {config.schedules} fit none of rounds {config.rounds}")
    return cells


def live(strategy: str, config: StudyConfig) -> bool:
    """Whether what the strategy reads changes when the model that scores is trained."""
    card = registry.card("strategy", registry.parse(strategy)[0])
    return bool(card.needs - POOL_SIGNALS - ({"embedding"} if config.embedding == "frozen" else set()))


def collapses(cell: Campaign, config: StudyConfig) -> bool:
    """True where more rounds change nothing: signals frozen, picks nested, and training from the base every time. Drafts to compare are
    each round's model's: more rounds always change them."""
    if config.judgements == "preferences":
        return False
    card = registry.card("strategy", registry.parse(cell.strategy)[0])
    return card.nested and not live(cell.strategy, config) and cell.start == "cold"


def runs_as(cell: Campaign, config: StudyConfig) -> Campaign:
    """The campaign that is run for this cell: m = 1 where more rounds would change nothing. With m = 1 every start is cold
    and every named schedule is the same."""
    if collapses(cell, config) or cell.rounds == 1:
        return replace(cell, rounds=1, schedule="even", start="cold")
    return cell


def references(config: StudyConfig) -> list[Campaign]:
    """Random's nested prefixes at every number of annotations at which a cell is evaluated: the reference learning curve."""
    if not config.reference_curve:
        return []
    points = set()
    for cell in asked(config):
        run = runs_as(cell, config)
        total = 0
        for size in run.sizes:
            total += size
            points.add(total)
    known = {runs_as(cell, config).id for cell in asked(config)}
    curve = [Campaign("random", 1, n, seed, reference=True) for n in sorted(points) for seed in config.seeds]
    return [c for c in curve if c.id not in known]


def chance_overlap(budget: int, prompts: int) -> float:
    """Jaccard overlap to expect of two independent random sets of `budget` out of `prompts`: b/n in common, b / (2n - b) of all."""
    return budget / (2 * prompts - budget)


def prefix_key(campaign: Campaign, number: int) -> tuple:
    """Rounds of two campaigns with equal keys are the same work."""
    return (campaign.strategy, campaign.start if number > 1 else "cold", campaign.seed, campaign.sizes[:number])


def lay_out(wanted: list[Campaign], known: dict[str, dict]) -> tuple[dict[str, dict], list[str]]:
    """Give every campaign its stage folders: a prefix lives in the folder of the first campaign that has it.

    -> (entries by campaign id, in order, with `folders`; folders that another campaign branches from).
    """
    entries = dict(known)
    for campaign in wanted:
        if campaign.id in entries:
            if entries[campaign.id]["reference"] and not campaign.reference:  # asked for now: no longer measurement only
                entries[campaign.id]["reference"] = False
            continue
        entries[campaign.id] = asdict(campaign) | {"folders": []}
    homes: dict[tuple, str] = {}
    users: dict[str, int] = {}
    for name, entry in entries.items():
        campaign = campaign_of(entry)
        keep = entry["folders"]
        entry["folders"] = []
        for number in range(1, campaign.rounds + 1):
            own = keep[number - 1] if keep else f"campaigns/{name}/round-{number:03d}"
            folder = homes.setdefault(prefix_key(campaign, number), own)
            entry["folders"].append(folder)
            users[folder] = users.get(folder, 0) + 1
    return entries, sorted(folder for folder, count in users.items() if count > 1)
