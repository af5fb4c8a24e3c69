"""The shadow arm on the shipped model, from the command line."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import yaml

from . import test_kill_campaign as kill

pytestmark = pytest.mark.slow

CONFIG = kill.CONFIG | {"budget": 44, "shadow": 0.3, "drafts": False, "oracle": {"use": "noisy", "errors": {"anna": 0.05}, "skips": 0.1}}


def test_a_shadow_arm_whose_comparison_was_killed_twice_ends_with_the_same_verdict(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    code, said = kill.do(one, "next", "c.yaml")
    assert code == 0 and "only the shadow arm compares with random" in said
    shutil.copytree(one, other)
    code, said = kill.do(one, "finish", "c.yaml")
    assert code == 0
    verdict = next(line for line in said.splitlines() if line.startswith("is it worth it: "))
    assert "by the shadow arm after round 2, at equal numbers of labels (" in verdict
    rng = np.random.default_rng(0)
    assert [kill.killed(other, rng, "finish", "c.yaml") for _ in range(2)] == [True, True]
    assert verdict in kill.do(other, "finish", "c.yaml")[1]
    assert kill.content(other / "runs/killed") == kill.content(one / "runs/killed")
    lessons = [json.loads(next(root.rglob("shadow.json")).read_text()) for root in (one, other)]
    assert lessons[0]["random"] == lessons[1]["random"] and lessons[0]["chosen"] == lessons[1]["chosen"]
    left = [path for path in next(other.rglob("shadow")).iterdir() if path.suffix != ".parquet"]
    assert left == [] and len(os.listdir(next(other.rglob("shadow")))) == 10
