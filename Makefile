# Everything is a command in here or a command that one in here prints. Needs Python 3.11 or later, make and a network.
PYTHON ?= python3
# looked up before .venv comes first in the path
BASE := $(shell command -v $(PYTHON))
PROFILE ?= cpu
PROFILES := cpu $(patsubst experiments/%/params.yaml,%,$(wildcard experiments/*/params.yaml))
SOURCES := $(patsubst notebooks/%.ipynb,build/source/%.py,$(wildcard notebooks/*.ipynb))
PIPELINE := $(if $(filter cpu,$(PROFILE)),dvc.yaml,experiments/$(PROFILE)/dvc.yaml)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_NUM_THREADS ?= 1

ifeq ($(filter $(PROFILE),$(PROFILES)),)
$(error PROFILE: expected one of $(PROFILES), found '$(PROFILE)')
endif

.PHONY: help setup reproduce test lab readme benchmark clean lock environment
.DEFAULT_GOAL := help

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PROFILE=$(PROFILES) (default cpu) says how large; PYTHON=python3.12 which Python to build the environment with"

setup: environment data $(SOURCES) ## the environment, and what `dvc repro --allow-missing` needs in a fresh clone

reproduce: environment ## say how long it takes, run what is not up to date, compare with the committed results
	@python -m jepa.lab.plan $(PROFILE)
	dvc repro $(PIPELINE)
	@python -m jepa.lab.compare $(PROFILE)

test: setup ## ruff, pytest and nbval
	ruff check
	ruff format --check
	@mkdir -p build; \
	pytest --nbval-lax --nbval-current-env -p no:cacheprovider notebooks > build/nbval.log 2>&1 & notebooks=$$!; \
	trap "kill $$notebooks 2>/dev/null" INT TERM; \
	pytest; tests=$$?; \
	wait $$notebooks; notebooks=$$?; \
	cat build/nbval.log; \
	test $$tests -eq 0 -a $$notebooks -eq 0

lab: setup ## JupyterLab with the right kernel (LAB=... passes options)
	jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb $(LAB)

readme: environment ## rewrite the README's generated tables
	python -m jepa.lab.tables

benchmark: environment ## time what was made fast beside what others have
	for name in $(basename $(notdir $(wildcard benchmarks/*.py))); do python -m benchmarks.$$name || exit 1; done

clean: ## remove what runs left, not the environment, the data or the results
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

lock: ## rewrite requirements.lock from pyproject.toml with the newest versions
	@$(BASE) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "error: Python: expected 3.11, the oldest supported one; name it: make lock PYTHON=...")'
	rm -rf build/lock
	$(BASE) -m venv build/lock
	build/lock/bin/pip install '.[lab,test]'
	{ grep '^#' requirements.lock; build/lock/bin/pip freeze --exclude jepa \
	  | sed 's/+.*//' | grep -Eiv '^(nvidia|cuda|triton|rfc3987-syntax)'; } > build/requirements.lock
	mv build/requirements.lock requirements.lock

environment: .venv/.done
	@test -e .git || grep -qs no_scm .dvc/config.local || dvc config --local core.no_scm true

.venv/.done: requirements.lock pyproject.toml
	@test -n "$(BASE)" || { echo "error: no $(PYTHON); install Python 3.11 or later, or name one: make PYTHON=..."; exit 1; }
	@$(BASE) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "error: Python: expected 3.11 or later, found %d.%d; name another one: make PYTHON=..." % v[:2])'
	$(BASE) -m venv .venv
	.venv/bin/pip install -r requirements.lock
	.venv/bin/pip install -q --no-deps -e .
	@touch .venv/.done

data: experiments/data.yaml | environment
	python -m jepa.runs.data --out data
	@touch data

build/source/%.py: notebooks/%.ipynb | environment
	@python -m jepa.lab.source $< $@
