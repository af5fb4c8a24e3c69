"""python3 eval.py --config config_gemma.json --mode bbh: the same as `outlay eval`, from a checkout."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv/bin/python"


def main() -> None:
    """Run `outlay eval` with our arguments; in the checkout's .venv where this Python has no Outlay."""
    if find_spec("outlay") is None:
        if not VENV.exists() or os.environ.get("OUTLAY_EVAL_AGAIN"):
            sys.exit("error: Outlay is not installed here; run: pip3 install -r requirements.txt (Python 3.11 or newer), or: make test")
        os.environ["OUTLAY_EVAL_AGAIN"] = "1"
        os.execv(VENV, [str(VENV), str(HERE / "eval.py"), *sys.argv[1:]])
    from outlay.cli import main as outlay

    sys.argv.insert(1, "eval")
    outlay()


if __name__ == "__main__":
    main()
