# Two commands do everything on a machine that has python3 (3.10 or newer), make and git:
#   make reproduce    make test
# Everything installed goes to .venv, at the versions of constraints.txt; pip reads your own pip configuration.

PYTHON ?= python3
OUT ?= out
DEVICE ?= cuda
JOBS ?= 2
PYTHONS ?= 3.10 3.12 3.13
CORE := hypothesis mpmath pytest pytest-xdist
MUTANTS ?= 60

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INPUTS := pyproject.toml constraints.txt
# One thread of linear algebra in each pytest worker: the workers already share the cores. A file's tests stay together,
# so that what they share is made once. Bytecode is kept also where the environment says not to: else each worker compiles
# all tests again in every run.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest
# Files in their own order, not those with the most tests first: short ones of the theory come last, and no core waits for the other.
WORKERS := -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help reproduce reproduce-full docs paper smollm2 test test-slow test-pythons nightly nightly-check readme attack mutants bench bench-trl bench-gpu lint format types clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

reproduce: $(VENV)/.installed ## install, then figures, checks, smoke runs of the models and report.html in out/ (OUT=dir)
	$(BIN)/fstsim reproduce --out "$(OUT)"

reproduce-full: $(VENV)/.installed ## everything at scale paper, for a GPU: experiments, validation, then the report (DEVICE=cuda)
	$(BIN)/fstsim experiment all --preset paper --seeds 5 --jobs 1 --device "$(DEVICE)" --out "$(OUT)/experiments"
	$(BIN)/fstsim validate --preset paper --jobs 1 --device "$(DEVICE)" --out "$(OUT)/validation"
	$(BIN)/fstsim reproduce --out "$(OUT)/reproduce"

paper: $(VENV)/.installed-paper ## the manuscript as out/fstsim.pdf, from the records in paper/data (OUT=dir)
	$(BIN)/python -m fstsim.paper.manuscript --out "$(OUT)"

docs: $(VENV)/.installed-docs ## the documentation as out/docs/index.html, built offline and strictly (OUT=dir; Python 3.11 or newer)
	$(BIN)/python -m fstsim.paper.pages.site --out "$(OUT)/docs"
	@test ! -f "$(OUT)/report.html" || $(BIN)/python -m fstsim.paper.report.report --out "$(OUT)"

smollm2: $(VENV)/.installed-pretrained ## get the pretrained model SmolLM2-135M-Instruct (98 MB) for --model smollm2
	$(BIN)/fstsim model smollm2

test: $(VENV)/.installed-test ## run the tests (100 Hypothesis examples, JOBS=2 workers)
	FSTSIM_HYPOTHESIS_PROFILE=ci $(PYTEST) $(WORKERS)

test-slow: $(VENV)/.installed-test ## run only the tests marked slow
	FSTSIM_HYPOTHESIS_PROFILE=ci $(PYTEST) $(WORKERS) -m slow

test-pythons: ## test the core (simulator and theory, without torch) on Python 3.10, 3.12 and 3.13, where they are found
	@for version in $(PYTHONS); do $(MAKE) --no-print-directory test-core VERSION=$$version || exit 1; done

.PHONY: test-core
test-core:
	@if python$(VERSION) -c '' 2>/dev/null; then \
		python$(VERSION) -m venv "$(OUT)/python$(VERSION)" \
		&& "$(OUT)/python$(VERSION)/bin/python" -m pip install --quiet -c constraints.txt -e . $(CORE) \
		&& echo "Python $(VERSION):" \
		&& OMP_NUM_THREADS=1 "$(OUT)/python$(VERSION)/bin/python" -m pytest -q -n $(JOBS) -p no:cacheprovider \
			$$(grep -rLE "torch|fstsim\.llm|transformers|safetensors" tests/fstsim tests/theory/test_overlap.py tests/theory/test_replay.py --include='test_*.py'); \
	else echo "Python $(VERSION): not found, left out"; fi

nightly: $(VENV)/.installed-test ## run all tests, slow ones too, with 2000 random Hypothesis examples
	FSTSIM_HYPOTHESIS_PROFILE=nightly $(PYTEST) $(WORKERS) -m "slow or not slow"

nightly-check: $(VENV)/.installed ## a million random instances of every statement, into paper/data/checks.json
	$(BIN)/python -m fstsim.paper.records.record_check

readme: $(VENV)/.installed ## rewrite the generated parts of README and paper/docs from the code and paper/data
	$(BIN)/python -m fstsim.paper.pages.rewrite

attack: $(VENV)/.installed-test ## attack the product: malformed input, damaged files, kills, hostile servers, pages (20 minutes, into paper/data/attack.json)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python tests/attack --jobs $(JOBS)

mutants: $(VENV)/.installed-test ## change signs, factors and comparisons one at a time and see whether the tests notice (hours; MUTANTS=60 a folder)
	$(BIN)/python tests/mutation/mutants.py --each $(MUTANTS)

bench: $(VENV)/.installed-test ## time the hot paths on one core (reported, never asserted)
	$(PYTEST) --benchmark-only --benchmark-columns=min,median,iqr,ops,rounds tests/benchmarks/bench_*.py

bench-trl: $(VENV)/.installed-test ## time a CISPO step against TRL's and a naive loop, side by side on the CPU
	$(BIN)/python tests/benchmarks/trl_side_by_side.py --out "$(OUT)/trl-cpu.json"

bench-gpu: $(VENV)/.installed-test ## the same on CUDA (needs a torch with CUDA in .venv)
	$(BIN)/python tests/benchmarks/trl_side_by_side.py --device cuda --out "$(OUT)/trl-cuda.json"

lint: $(VENV)/.installed-test ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test ## fix what lint can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy cannot follow an editable install of this layout, so it checks an installed copy. The old copy goes first,
# and setuptools' own build folder with it: both would keep modules that have since been deleted.
types: $(VENV)/.installed-test ## check types
	rm -rf build
	$(PIP) install --quiet --no-deps --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p fstsim

clean: ## remove build products and caches (keeps .venv and out/)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .benchmarks
	find fstsim theory llm paper tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each install runs again only when what it installs from has changed.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "fstsim needs Python 3.10 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) \
		|| { echo "cannot make $(VENV): on Debian and Ubuntu install python3-venv first"; exit 1; }
	@touch $@

$(VENV)/.installed: $(INPUTS) | $(VENV)/.made
	$(PIP) install --quiet -c constraints.txt -e '.[llm]'
	@touch $@

$(VENV)/.installed-docs: $(INPUTS) | $(VENV)/.made
	$(PIP) install --quiet -c constraints.txt -e '.[llm,docs]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-paper: $(INPUTS) | $(VENV)/.made
	$(PIP) install --quiet -c constraints.txt -e '.[llm,paper]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-pretrained: $(INPUTS) | $(VENV)/.made
	$(PIP) install --quiet -c constraints.txt -e '.[llm,pretrained]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-test: $(INPUTS) | $(VENV)/.made
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $(VENV)/.installed $@
