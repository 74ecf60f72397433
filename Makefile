# One command each; what needs the environment makes it first.
VENV ?= .venv
PYTHON_BIN := $(VENV)/bin/python
JOBS ?= 2
WHAT ?= decode prefill peak sums rows papers peers serve

.DEFAULT_GOAL := help
.PHONY: setup demo test test-gpu test-matrix test-lm test-lmms test-ray test-vllm check format bench bench-gpu results train-tiny clean help

setup: ## make .venv ready (quick when it is)
	@VENV=$(VENV) ./setup.sh

demo: setup ## answer questions about a generated document, full cache and AirCache side by side
	@$(VENV)/bin/foveate demo

test: setup ## run the tests (no GPU, no network)
	OMP_NUM_THREADS=1 $(PYTHON_BIN) -m pytest -n $(JOBS) $(ARGS)

test-gpu: setup ## run the tests that need an accelerator
	$(PYTHON_BIN) -m pytest -m gpu $(ARGS)

test-matrix: setup ## run the seam tests on every supported generation of transformers
	@VENV=$(VENV) scripts/test_matrix.sh $(VERSIONS)

test-lmms: ## run the tests of the lmms-eval plug-in, beside lmms-eval in .venv-lmms
	@scripts/lmms.sh
	OMP_NUM_THREADS=1 .venv-lmms/bin/python -m pytest tests/integrations/lmms $(ARGS)

test-ray: ## run Ray Data and Ray Serve on small jobs, in .venv-ray
	@VENV=.venv-ray EXTRAS=ray ./setup.sh
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest tests/integrations/ray $(ARGS)

test-vllm: ## run compressed prompts on vLLM's build for the CPU, in .venv-vllm
	@scripts/vllm.sh
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/integrations/vllm $(ARGS)

test-lm: ## run LongBench of lm-eval on a small model, in .venv-lm
	@VENV=.venv-lm EXTRAS=lm ./setup.sh
	OMP_NUM_THREADS=1 .venv-lm/bin/python -m pytest tests/integrations/lm $(ARGS)

check: setup ## formatting, lint, types, documentation
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON_BIN) scripts/check_docs.py
	$(PYTHON_BIN) scripts/results.py --check
	$(PYTHON_BIN) scripts/tables.py --check
	$(PYTHON_BIN) scripts/charts.py --check
	$(PYTHON_BIN) scripts/methods_page.py --check

format: setup ## format, and fix what can be fixed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: setup ## test, then measure times and memory; writes benchmarks/results and docs/charts
	@$(VENV)/bin/foveate bench $(WHAT) $(ARGS)

bench-gpu: setup ## the same on a GPU, in bfloat16 and with long prompts
	@$(VENV)/bin/foveate bench $(WHAT) --device cuda $(ARGS)

results: setup ## tables and pictures of evaluations, from the logs runs/eval/*.jsonl
	$(PYTHON_BIN) scripts/results.py $(ARGS)
	$(PYTHON_BIN) scripts/tables.py
	$(PYTHON_BIN) scripts/charts.py

train-tiny: setup ## train the embedded model from scratch (resumable)
	$(PYTHON_BIN) -m foveate.tiny.train $(ARGS)

clean: ## remove what the targets above have made, .venv included
	rm -rf .venv .venv-lm .venv-lmms .venv-ray .venv-vllm .matrix runs build dist .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find src tests scripts examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
