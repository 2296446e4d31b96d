# `make` lists the targets. run and test set themselves up: a virtual environment, an install, then the work.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DATASET ?= diginetica
BUDGET ?= 8m
GPU_PYTHON ?= $(BIN)/python
# Without a CUDA device the CPU build of torch is installed, not gigabytes of CUDA libraries: from pip's own sources
# where they have it, else from PyTorch's index; where neither can be reached, whatever build PyPI has.
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 || echo "-c constraints-cpu.txt")
CPU_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/pip install --disable-pip-version-check -q

.PHONY: help run test lint figures bench lab gpu clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit("dissect needs Python 3.10 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	@if [ -n "$(CONSTRAINTS)" ] && ! $(BIN)/python -c 'import torch' 2>/dev/null; then \
		torch=$$(grep '^torch' constraints-cpu.txt); echo "installing $$torch, CPU build"; \
		$(PIP) --no-deps --no-index "$$torch" 2>/dev/null || $(PIP) --no-deps --index-url $(CPU_INDEX) "$$torch" || true; fi
	$(PIP) $(CONSTRAINTS) -e '.[dev]'
	@touch $@

run: $(VENV)/.installed ## set up, then dissect SR-GNN on a data set made on the spot (two to three minutes)
	$(BIN)/dissect run srgnn --dataset demo

test: $(VENV)/.installed ## set up, then run the tests, on as many as four cores
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

figures: $(VENV)/.installed ## regenerate figures/ from analyses/records/
	@set -e; for script in figures/*.py; do case $$script in */style.py|*/published.py) ;; *) echo $$script; $(BIN)/python $$script;; esac; done

bench: $(VENV)/.installed ## time a training step of SR-GNN by stage, dense and wrapped
	$(BIN)/dissect bench srgnn
	$(BIN)/dissect bench srgnn --sparsify all

lab: $(VENV)/.installed ## JupyterLab on the notebooks of analyses/
	$(PIP) $(CONSTRAINTS) -e '.[analyses]'
	$(BIN)/jupyter lab --notebook-dir analyses

# On a machine whose own Python has all that is needed: make gpu GPU_PYTHON=python3. A step that fails stops none of the
# others: the machine may be borrowed. What failed is said at the end, and is the exit status.
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(VENV)/.installed) ## on a CUDA device: its tests, benchmarks, then analyses/suites/gpu.toml (BUDGET=8m)
	@failed=; step() { echo "$$*"; PYTHONPATH=. $(GPU_PYTHON) -m "$$@" || failed="$$failed; $$*"; }; \
	step pytest -q -o addopts= --import-mode=importlib --continue-on-collection-errors -m gpu tests/training; \
	for how in "" "--precision bf16" "--sparsify all"; do step dissect bench srgnn --dataset $(DATASET) --dim 256 --device cuda $$how; done; \
	step dissect suite analyses/suites/gpu.toml --variant full --budget $(BUDGET) --out runs/gpu --records runs/gpu/records --keep; \
	if [ -d runs/gpu/records ]; then tar czf runs/gpu/records.tar.gz -C runs/gpu records && echo runs/gpu/records.tar.gz; fi; \
	if [ -n "$$failed" ]; then echo "FAILED:$${failed#;}"; exit 1; fi

clean: ## remove the virtual environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info
