# The two commands that matter: `make fuzz` and `make test`. Both first make .venv when it is missing or out of date.
#
# PYTHON=...  the interpreter to make .venv with; without it, the first suitable one on PATH.
# TIME=60s    how long `make fuzz` runs.
# OUT=...     where it writes the tests that reproduce what it found.
# LOCK=...    another list of exact versions, from requirements/.
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

# 3.11 first: the lock was made and tested with it. ensurepip is what Debian's python3 lacks without python3-venv.
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3)
SUITABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

STAMP := .venv/.stamp
# --no-deps: SGLang's metadata asks for gigabytes of CUDA packages. -qq: only errors.
PIP := .venv/bin/python -m pip --disable-pip-version-check -qq install --no-deps

.PHONY: help fuzz test venv clean distclean FORCE

help:
	@cat <<-'END'
	make fuzz       fuzz SGLang's scheduler for $(TIME); repros of what is found go to $(OUT)/
	make test       run the test suite
	make venv       only make or refresh .venv
	make clean      remove caches, build outputs and $(OUT)/
	make distclean  the same, and .venv
	END

# Exit status 0 whether or not a bug of SGLang was found.
fuzz: $(STAMP)
	@.venv/bin/sr-fuzz run --time $(TIME) --out $(OUT)

# The profile that plays the same scripts each time, so that red means the change; `pytest` alone plays other ones.
test: $(STAMP)
	@.venv/bin/python -m pytest --hypothesis-profile=ci

venv: $(STAMP)

# A stamp without its interpreter (an upgraded or removed Python) counts as missing.
$(STAMP): $(LOCK) pyproject.toml $(if $(wildcard .venv/bin/python),,FORCE)
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
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	@rm -rf .venv
