# Two commands matter: `make book` and `make test`. Both install first, into .venv, if need be.
PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= quick
SEED    ?= 0
PORT    ?= 8000
SWEEP   ?=
CONSTRAINTS ?=
BIN     := $(VENV)/bin
READY   := $(VENV)/.lfx-installed

.DEFAULT_GOAL := help
.PHONY: help install book test paper bench serve clean

help:  ## say what can be made
	@echo "make WHAT, where WHAT is one of"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 12
	@echo "Settings: PYTHON=$(PYTHON) VENV=$(VENV) PROFILE=$(PROFILE) SEED=$(SEED) PORT=$(PORT) CONSTRAINTS=$(CONSTRAINTS)"

book: $(READY)  ## execute what changed and build the HTML book
	@$(BIN)/python book/build.py --profile $(PROFILE) --seed $(SEED)

test: $(READY)  ## run every test, the notebooks at the smoke profile included
	@$(BIN)/python -m pytest -q -n auto --maxschedchunk 1

paper: $(READY)  ## run the papers' settings as a workflow of many jobs (a GPU helps; resumable)
	@$(BIN)/python -m snakemake --snakefile workflow/Snakefile --cores all --keep-going --rerun-incomplete --nolock \
	  --rerun-triggers params $(SWEEP)

bench: $(READY)  ## measure speed against the papers' own packages
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

serve:  ## show the built book at http://localhost:8000
	@test -f _build/html/index.html || { echo "There is no book yet: run 'make book' first."; exit 1; }
	@$(PYTHON) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean:  ## remove what was built (the environment stays)
	rm -rf _build

install: $(READY)  ## make the virtual environment and install into it; CONSTRAINTS=constraints.txt for the kept numbers' versions

$(READY): requirements.txt pyproject.toml setup.py $(CONSTRAINTS)
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Python 3.11 or newer is needed, and there is no $(PYTHON); name one: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, \
	$(PYTHON) is %d.%d; name another: make PYTHON=python3.12 ..." % v[:2])'
	@echo "Installing into $(VENV) (a few minutes, several GB with torch) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
