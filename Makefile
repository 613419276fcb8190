# Each target does all of its own set-up; a fresh machine needs Python >= 3.11 and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types docs check fuzz test-slow test-kill bench-table \
        test-browser test-ray test-oldest test-servers gpu bench-gpu clean

demo: $(VENV)/.demo  ## run the quickstart notebook on the demo model, leave an HTML page
	$(BIN)/python examples/execute.py examples/quickstart.ipynb

test: $(VENV)/.test  ## the default test suite
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check vlm_nb tests examples benchmarks

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.docs  ## the documentation in site/; a warning, a broken link or an old table is an error
	$(BIN)/python docs/tools/what_fits.py --check
	$(BIN)/python docs/tools/cluster_sizing.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean --quiet
	$(BIN)/python docs/tools/check_site.py site

fuzz: $(VENV)/.test  ## long property tests of the grounding parsers
	$(BIN)/python -m pytest -m fuzz

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

test-kill: $(VENV)/.test  ## kill a run of 300 rows at 20 random moments
	$(BIN)/python -m pytest -m slow tests/test_ledger_kill.py

bench-table: $(VENV)/.test  ## what tables cost: speed, ledger, memory over 100,000 rows, restart
	$(BIN)/python benchmarks/table.py

test-browser: $(VENV)/.browser  ## magics and widget in real JupyterLab and Notebook 7, headless Chromium
	$(BIN)/python -m pytest -m browser --reruns 2 --maxfail 8 tests/browser

test-ray: $(VENV)/.ray  ## the ray engine on a local cluster with two replicas, one of them killed
	$(BIN)/python -m pytest -m ray -rs --reruns 2

test-oldest:  ## a part of the default suite on the oldest versions that pyproject.toml promises
	PYTHON="$(PYTHON)" bash tests/oldest/run.sh

test-servers: $(VENV)/.dev  ## the openai engine against real servers on loopback: transformers serve, vLLM
	PYTHON="$(PYTHON)" bash tests/servers/install.sh
	$(BIN)/python -m pytest -m servers -rs --reruns 2 tests/servers

gpu: $(VENV)/.test  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu -rs

bench-gpu: $(VENV)/.test  ## speed and memory on a CUDA device; ARGS="--shape 7b --compile" for others
	$(BIN)/python benchmarks/gpu.py $(or $(ARGS),--shape 3b --jpeg)

clean:
	rm -rf $(VENV) .venv-oldest .venv-servers build dist site demo-output .pytest_cache .mypy_cache .ruff_cache

# One marker file per set of dependencies: nothing is installed twice.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[pandas]" jupyterlab nbclient nbconvert ipykernel
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(PIP) -e ".[test]"
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.demo
	$(PIP) -e ".[docs]"
	touch $@

$(VENV)/.ray: $(VENV)/.test
	$(PIP) -e ".[ray]"
	touch $@

$(VENV)/.browser: $(VENV)/.test
	$(PIP) playwright axe-playwright-python
	bash tests/browser/install_chromium.sh
	PYTHON="$(BIN)/python" bash tests/browser/install_ipykernel6.sh
	touch $@
