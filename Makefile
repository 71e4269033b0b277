# make demo, make test: on a machine with nothing but Python (3.11 or newer) and make.
# Everything that is installed lies in .venv and backends/*/.venv.

VENV   := .venv
PY     := $(VENV)/bin/python
SOURCE := voice_server voice_worker backends bench examples tests cli.py client.py server.py

export OMP_NUM_THREADS ?= 1
# Tests start the command line and the server some hundred times: let both be compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast test-engines test-clients chaos fuzz bench lint types fmt requirements clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo       hear it: tokens in, speech out, through a real server; writes demo.wav"
	@echo "make test       lint, types, architecture, every test"
	@echo "make test-fast  unit and property tests"
	@echo "make test-engines  install the engines that need torch and prove them (about 10 minutes)"
	@echo "make test-clients  install the clients of other vendors and run them against this server"
	@echo "make chaos      break workers, sockets and schedules; what was reached beside what is wanted"
	@echo "make fuzz       feed both protocols what coverage leads to, for four minutes"
	@echo "make bench      measure latency, crowds and segmentation"
	@echo "make lint fmt types requirements clean distclean"

demo: $(VENV)/.runtime
	@$(PY) cli.py backends install espeak
	@$(PY) cli.py demo --output demo.wav

# Half of the tests' time is waiting for processes: two at a time, each in a process of its own.
test: lint types
	$(PY) -m pytest --numprocesses 2 --dist worksteal

test-fast: $(VENV)/.dev
	$(PY) -m pytest tests/unit tests/properties

test-engines: $(VENV)/.dev
	$(PY) tests/engines/run

test-clients: $(VENV)/.dev
	$(PY) tests/clients/run

chaos: $(VENV)/.dev
	$(PY) -m tests.chaos

fuzz: $(VENV)/.dev
	$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install --quiet atheris==3.0.0
	$(PY) -m tests.fuzz client -max_total_time=120
	$(PY) -m tests.fuzz worker -max_total_time=120

bench: $(VENV)/.dev
	$(PY) cli.py backends install espeak tone
	$(PY) -m bench.segment
	$(PY) -m bench.latency
	$(PY) -m bench.streams
	$(PY) -m bench.relay
	$(PY) -m bench.doors
	$(PY) -m bench.mixed

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

fmt: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# After a change of the dependencies in pyproject.toml.
COMPILE = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links
requirements: $(VENV)/.runtime
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --group dev -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo.wav
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) backends/*/.venv

# -- environments ---------------------------------------------------------------------------------

# The newest Python there is, unless PYTHON says which.
$(VENV)/bin/python:
	@set -e; \
	for python in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
	  [ -n "$$python" ] || continue; \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv $(VENV) && exit 0; \
	  rm -rf $(VENV); \
	  echo "$$python cannot make a venv; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; \
	done; \
	echo "Voice Server needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; \
	exit 1

# A .venv that uv made has no pip, but then it has uv.
define install
	@if $(PY) -m pip --version >/dev/null 2>&1; \
	then $(PY) -m pip install --disable-pip-version-check --quiet $(1); \
	else $$(command -v $(VENV)/bin/uv uv | head -1) pip install --quiet -p $(PY) $(1); fi
	@touch $@
endef

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	@echo "installing requirements.txt into $(VENV)"
	$(call install,-r requirements.txt)

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "installing requirements-dev.txt into $(VENV)"
	$(call install,-r requirements-dev.txt)
