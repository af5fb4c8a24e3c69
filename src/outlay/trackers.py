"""Send a finished study's curves to experiment trackers, through accelerate's integrations. Off unless `report_to` names one;
the local tables are always there."""

from __future__ import annotations

from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import OutlayError
from .store import Store, fingerprint

METRICS = ("accuracy", "nll")


def send(root: Path, report_to: list[str], project: str) -> None:
    """One tracker run per campaign, one step per annotation bought: accuracy and NLL per benchmark, diversity and costs.

    What was sent is noted in trackers/sent.json of the run directory: a campaign goes out again only when its numbers changed.
    Raises OutlayError naming the package to install where a tracker's is missing.
    """
    if not report_to:
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    from accelerate.utils import is_mlflow_available, is_tensorboard_available, is_trackio_available, is_wandb_available

    results = pd.read_parquet(root / "results.parquet")
    PartialState()  # accelerate's trackers ask it which process they are in
    there = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available, "mlflow": is_mlflow_available, "trackio": is_trackio_available}
    store, note = Store(root), "trackers/sent.json"
    sent = store.read(note, dict) if (root / note).exists() else {}
    for name in report_to:
        if not there[name]():
            raise OutlayError(f"report_to names {name}, which is not installed: pip install {name}; or take it out of report_to (the local tables are complete)")
        for campaign, rows in results.groupby("campaign", sort=False):
            steps = {int(spent): _values(step) for spent, step in rows.drop_duplicates(["round", "benchmark"]).groupby("labels_spent")}
            key, digest = f"{name}/{campaign}", fingerprint({str(k): {c: repr(v) for c, v in values.items()} for k, values in steps.items()})
            if sent.get(key) == digest:
                continue
            where, options = _place(name, root, project, str(campaign))
            tracker = LOGGER_TYPE_TO_CLASS[name](*where, **options)
            try:
                tracker.start()
            except ImportError as bad:
                raise OutlayError(f"report_to names {name}, whose package is broken here ({bad}); install it again, or take it out of report_to (the local tables are complete)") from bad
            for spent, values in steps.items():
                tracker.log(values, step=spent)
            tracker.finish()
            sent[key] = digest
            store.write(note, sent)


def _place(name: str, root: Path, project: str, campaign: str) -> tuple[tuple, dict[str, Any]]:
    """How each tracker is told project, run name and (where it writes files) folder: (positional, keyword) arguments."""
    folder = root / "trackers" / name
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "tensorboard": ((campaign, str(folder)), {}),
        "wandb": ((project,), {"name": campaign, "dir": str(folder), "reinit": "finish_previous"}),
        "mlflow": ((project,), {"run_name": campaign}),
        "trackio": ((project,), {"name": campaign}),
    }[name]


def _values(step: pd.DataFrame) -> dict[str, float]:
    """All numbers of one round: "balanced/accuracy", "vendi_model", "flops", ..."""
    values = {f"{row.benchmark}/{m}": float(getattr(row, m)) for row in step.itertuples() for m in METRICS}
    first = step.iloc[0]
    skip = {"rounds", "rounds_run", "seed", "budget", "round", "labels_spent", "n_items", "unparsed", "cut_off", *METRICS}
    numbers = {c: first[c] for c in step.columns if c not in skip and isinstance(first[c], Number) and not isinstance(first[c], bool | np.bool_)}
    return values | {c: float(v) for c, v in numbers.items() if np.isfinite(v)}
