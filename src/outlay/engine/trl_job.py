"""`accelerate launch -m outlay.engine.trl_job FOLDER` does the training that trl_backend has written into FOLDER; every process runs this."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ..types import Cost, Model
from .render import Rendered
from .runtime import Runtime
from .trl_backend import TRL, learn


def main(place: str) -> None:
    job = json.loads(Path(place, "job.json").read_text())
    given = job["options"]
    targets = given["lora_targets"]
    options = TRL(**given | {"runtime": Runtime(**given["runtime"]), "lora_targets": targets if isinstance(targets, str) else tuple(targets)})
    lesson = [Rendered(e["id"], tuple(e["ids"]), tuple(e["user"]), e["answer"]) for e in job["lesson"]]
    with options.runtime.active():
        course = learn(options, Model(**job["start"] | {"cost": Cost()}), lesson, Path(job["folder"]), job["seed"])
    Path(place, "course.json").write_text(json.dumps(asdict(course)))


if __name__ == "__main__":
    main(sys.argv[1])
