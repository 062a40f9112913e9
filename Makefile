# The two commands that matter: `make fuzz` and `make test`. Both first make .venv when it is missing or out of date.
#
# PYTHON=...  the interpreter to make .venv with; without it, the first suitable one on PATH.
# TIME=60s    how long `make fuzz` runs.
# OUT=...     where it writes the tests that reproduce what it found.
# LOCK=...    another list of exact versions, from requirements/.
#
# On a machine with a CUDA GPU, `make gpu` runs the property tests there, with the torch that the machine has:
#
# GPU_PYTHON=...  the interpreter that has it (python3).
# GPU_LOCK=...    another list of what is put beside it, from requirements/.
# GPU_TESTS=...   which tests.
# WHEELS=DIR      install from this folder alone, without a network; `make wheels WHEELS=DIR` fills it elsewhere.
#
# The lock asks for a torch without CUDA. Where pip's package index has only the CUDA build under that version, name
# PyTorch's CPU wheel index in PIP_EXTRA_INDEX_URL; pip then prefers its `+cpu` build.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

TIME ?= 60s
OUT ?= findings
LOCK ?= requirements/cpu-sglang-0.5.23.txt
PYTHON ?=

GPU_LOCK ?= requirements/gpu-sglang-0.5.16.txt
GPU_PYTHON ?= python3
GPU_TESTS ?= tests/properties tests/engine/test_gpu.py
WHEELS ?=

# 3.11 first: the lock was made and tested with it. ensurepip is what Debian's python3 lacks without python3-venv.
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3)
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

STAMP := .venv/.stamp
GPU_STAMP := .venv-gpu/.stamp
# --no-deps: SGLang's metadata asks for gigabytes of CUDA packages. -qq: only errors.
PIP := .venv/bin/python -m pip --disable-pip-version-check -qq install --no-deps

# The machine's pip, working on .venv-gpu, so that Python's ensurepip is not needed.
GPU_PIP = "$(GPU_PYTHON)" -m pip --python .venv-gpu/bin/python --disable-pip-version-check -qq install --no-deps \
    $(if $(WHEELS),--no-index --find-links "$(WHEELS)")
# What pip must be told to download for another machine: one with Python 3.12 and glibc 2.34 or newer.
GPU_TARGET := --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    $(foreach glibc,2_34 2_31 2_28 2_27 2_24 2_17,--platform manylinux_$(glibc)_x86_64) --platform manylinux2014_x86_64

.PHONY: help fuzz test releases gpu wheels venv clean distclean FORCE

help:
	@cat <<-'END'
	make fuzz       fuzz SGLang's scheduler for $(TIME); repros of what is found go to $(OUT)/
	make test       run the test suite
	make releases   play contract, smoke scripts, known bugs and fixes on every supported release of SGLang
	make gpu        run the property tests on a CUDA GPU, with the machine's own torch; see docs/gpu.md
	make venv       only make or refresh .venv
	make clean      remove caches, build outputs and $(OUT)/
	make distclean  the same, .venv and .venv-gpu
	END

# Exit status 0 whether or not a bug of SGLang was found.
fuzz: $(STAMP)
	@.venv/bin/sr-fuzz run --time $(TIME) --out $(OUT) --example

# The profile that plays the same scripts each time, so that red means the change; `pytest` alone plays other ones. Two
# workers: half of the time goes into starting servers, and each keeps some 4 GB of schedulers.
test: $(STAMP)
	@.venv/bin/python -m pytest --hypothesis-profile=ci -n 2 --dist loadfile

# RELEASES="--release 0.5.20" plays that one alone. Half an hour for all on two cores; each is fetched once.
releases: $(STAMP)
	@.venv/bin/python ci/releases.py $(RELEASES)

# Why nothing can run on a GPU here; empty where it can. Asked only when it matters, since torch takes seconds.
ifneq ($(filter gpu,$(MAKECMDGOALS)),)
    GPU_LACKS := $(shell "$(GPU_PYTHON)" ci/why_no_gpu.py 2>/dev/null || echo there is no such interpreter)
endif

# Exit status 0 where there is no GPU, so that one job serves all machines.
gpu: $(if $(GPU_LACKS),,$(GPU_STAMP))
	@case "$(GPU_LACKS)" in
	    "") .venv-gpu/bin/python -m pytest --hypothesis-profile=gpu -rs --sr-emit $(OUT) $(GPU_TESTS) ;;
	    no*) echo "make gpu: nothing was run: $(GPU_LACKS)" ;;
	    *) echo "make gpu: $(GPU_PYTHON): $(GPU_LACKS); name another: make gpu GPU_PYTHON=/path/to/python" >&2; exit 2 ;;
	esac

# Its torch is named by a path file: --system-site-packages would pass over one that lies in a virtual environment.
$(GPU_STAMP): $(GPU_LOCK) pyproject.toml setup.py $(if $(wildcard .venv-gpu/bin/python),,FORCE)
	@rm -f $@
	echo "Making .venv-gpu beside the torch of $$("$(GPU_PYTHON)" --version), with $(GPU_LOCK)"
	"$(GPU_PYTHON)" -m venv --clear --without-pip .venv-gpu
	site=$$(.venv-gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	"$(GPU_PYTHON)" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' > "$$site/torch.pth"
	$(GPU_PIP) -r $(GPU_LOCK) || { echo "make: pip could not install $(GPU_LOCK); its message is above" >&2; exit 2; }
	$(GPU_PIP) --no-build-isolation -e .
	.venv-gpu/bin/python -c 'import torch, torchvision' || { echo "make: torch or torchvision does not load; SGLang" \
	    "needs both, built for each other: install the torchvision of this torch beside it" >&2; exit 2; }
	touch $@

# For a machine with a GPU and without a network: copy the folder there.
wheels:
	@test -n "$(WHEELS)" || { echo "make wheels: name the folder: make wheels WHEELS=DIR" >&2; exit 2; }
	"$(or $(PYTHON),python3)" -m pip --disable-pip-version-check -q download --no-deps $(GPU_TARGET) \
	    -d "$(WHEELS)" -r $(GPU_LOCK)

venv: $(STAMP)

# A stamp without its interpreter (an upgraded or removed Python) counts as missing.
$(STAMP): $(LOCK) pyproject.toml setup.py $(if $(wildcard .venv/bin/python),,FORCE)
	@rm -f $@
	if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
	    for python in $(CANDIDATES) ''; do
	        if [ -n "$$python" ] && "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then break; fi
	    done
	    if [ -z "$$python" ]; then
	        echo "make: none of these is a Python 3.11 or newer with venv: $(CANDIDATES)." \
	            "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python" >&2
	        exit 2
	    fi
	    echo "Making .venv with $$("$$python" --version)"
	    "$$python" -m venv --clear .venv
	fi
	echo "Installing $(LOCK) (about 2.5 GB; a few minutes the first time)"
	$(PIP) -r $(LOCK) || { echo "make: pip could not install $(LOCK); its message is above" >&2; exit 2; }
	$(PIP) --no-build-isolation -e .
	.venv/bin/python -c 'import torch' || { echo "make: this torch does not load; if it is a CUDA build," \
	    "run: PIP_EXTRA_INDEX_URL=(PyTorch's CPU wheel index) make distclean venv" >&2; exit 2; }
	touch $@

clean:
	@rm -rf $(OUT) build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . \( -path ./.venv -o -path ./.venv-gpu \) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	@rm -rf .venv .venv-gpu
