# On a machine with make and python3 (3.11 or newer): `make demo` and `make test`.
# Both create .venv at the first call and install into it again when pyproject.toml changes.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= auto
PYTHON312 ?= python3.12

bin := $(VENV)/bin
install := $(bin)/python -m pip --disable-pip-version-check install -qq
pytest := $(bin)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal
benchmarks := $(basename $(notdir $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))))

.DELETE_ON_ERROR:
.PHONY: help demo test soak test-lowest test-arviz1 lint types bench bench-quick clean

help:
	@echo "make demo         sample a real posterior: a table, a NetCDF file and a picture"
	@echo "make test         run all tests"
	@echo "make soak         kill, interrupt and corrupt runs, hundreds of times"
	@echo "make lint types   check style and types"
	@echo "make bench-quick  run every benchmark at small size (make bench: full size)"
	@echo "make test-lowest  run the tests on the lowest versions that pyproject.toml allows"
	@echo "make test-arviz1  run the tests with Python 3.12 and ArviZ 1"
	@echo "make clean        remove environments, caches and outputs"

demo: $(VENV)/.installed
	@$(bin)/shoal demo

test: $(VENV)/.installed-dev
	@$(pytest)

soak: $(VENV)/.installed-dev
	@$(pytest) -m soak

lint: $(VENV)/.installed-dev
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .

types: $(VENV)/.installed-dev
	@$(bin)/mypy
	@$(bin)/python .ci/check_planted_errors.py

bench: $(VENV)/.installed-bench
	@$(call run_benchmarks,)

bench-quick: $(VENV)/.installed-bench
	@$(call run_benchmarks,--quick)

test-lowest:
	@mkdir -p out
	@$(PYTHON) .ci/lowest_versions.py > out/lowest.txt
	@PIP_CONSTRAINT=$(CURDIR)/out/lowest.txt $(MAKE) --no-print-directory test VENV=.venv-lowest

test-arviz1:
	@$(MAKE) --no-print-directory test VENV=.venv-arviz1 PYTHON=$(PYTHON312)

clean:
	rm -rf .venv .venv-lowest .venv-arviz1 build dist out shoal-demo shoal.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every benchmark runs, also after one that fails; the exit status tells.
define run_benchmarks
failed=; for name in $(benchmarks); do \
	echo; $(bin)/python benchmarks/$$name.py $(1) --json out/$$name.json || failed="$$failed $$name"; \
done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
endef

define old_python
echo "Shoal needs Python 3.11 or newer, and $(PYTHON) is \
$$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python3.12" >&2; exit 1
endef

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { $(old_python); }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	@echo "Installing shoal into $(VENV); the first time takes a minute or two."
	@$(install) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.created
	@echo "Installing shoal and its test tools into $(VENV); the first time takes a minute or two."
	@$(install) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.installed
	@$(install) --editable '.[bench]'
	@touch $@
