# `make demo` and `make test` do all set-up from a fresh clone; nothing else is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DEMO ?= demo-out
FUZZ_SECONDS ?= 600
FAULT_KILLS ?= 1
# One path by which mypy and doctests see the repository root as the package `spk`.
AS_SPK := $(VENV)/src

# What the environment is made of: it is made anew only where this has other content, not other times.
MADE_OF := __init__.py setup.py pyproject.toml constraints.txt

.PHONY: help python demo test test-quick test-ray test-pythons fuzz faults audit lint types format docs package clean
help:
	@echo "make demo     the whole way on synthetic and real voices: table, features, sweep, names, scores"
	@echo "make test     all tests"
	@echo "make test-quick   all but the slow ones: kills, disks, several processes"
	@echo "make test-ray   the tests on a Ray of this machine, the first of make test"
	@echo "make test-pythons   all tests on every Python that setup.py promises and this machine has"
	@echo "make fuzz     the readers and the store's opener, $(FUZZ_SECONDS) s each"
	@echo "make faults   kills ($(FAULT_KILLS) times 400) and signals, full disks, damage, two at once, a Ray's machines and cables"
	@echo "make audit    known faults of the pinned versions (needs the network)"
	@echo "make lint     ruff and mypy"
	@echo "make docs     the site, into site/; a warning is an error"
	@echo "make package  build wheel and sdist, install each into an empty environment, run it"

# Before anything is downloaded: is the Python that was named new enough, and the environment's?
python:
	@$(PYTHON) .ci/pythons.py check "$(PYTHON)" "$(VENV)" "$(MAKECMDGOALS)"

$(READY): $(MADE_OF) | python
	@if ! cat $(MADE_OF) | cmp -s - $(READY); then set -ex; \
	  $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,dev]"; \
	  mkdir -p $(AS_SPK); ln -sfn "$(CURDIR)" $(AS_SPK)/spk; fi
	@cat $(MADE_OF) > $(READY)

demo: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/demo.sh "$(DEMO)"

PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
test-quick: $(READY)
	$(PYTEST) -n auto --dist loadfile -m "not slow and not ray"

# Those on a Ray come first and by themselves, as each Ray has as many processes as there are cores.
test: $(READY)
	@failed=0; $(PYTEST) -m ray || failed=1; $(PYTEST) -n auto --dist loadfile -m "not ray" && exit $$failed

test-ray: $(READY)
	$(PYTEST) -m ray

# Each in an environment of its own, .venv-3.12 and so on; a Python that is not there is passed over.
TEST ?= test
test-pythons:
	@failed=; for version in $$($(PYTHON) .ci/pythons.py list); do \
	  python=$$($(PYTHON) .ci/pythons.py find $$version); \
	  if [ -z "$$python" ]; then echo "Python $$version: not on this machine, skipped"; continue; fi; \
	  echo "Python $$version: $$python"; \
	  $(MAKE) --no-print-directory $(TEST) PYTHON="$$python" VENV=.venv-$$version || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "tests failed on Python$$failed" >&2; exit 1; fi

# Guided by coverage where atheris has a build for this Python; else hypothesis draws the bytes.
fuzz: $(READY)
	-$(BIN)/python -m pip install --quiet atheris
	for target in rttm textgrid turns csv store; do \
	  $(BIN)/python -W ignore tests/robustness/campaigns/fuzz.py $$target $(FUZZ_SECONDS) || exit 1; done

# One thread, as forks keep no others. Disks and cables need root.
FAULTS := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/robustness/campaigns
faults: $(READY)
	$(FAULTS)/kills.py $(FAULT_KILLS)
	$(FAULTS)/damage.py
	$(FAULTS)/disk.py
	$(FAULTS)/two_at_once.py
	$(FAULTS)/machines.py
	$(FAULTS)/network.py

audit: $(READY)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit -r constraints.txt --no-deps --disable-pip

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

types: $(READY)
	MYPYPATH=$(AS_SPK) $(BIN)/mypy -p spk.common -p spk.manifests -p spk.extract -p spk.classify -p spk.finetune -m spk.__main__ -m spk.info

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Built without the network; to look at it with its search: python3 -m http.server -d site
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(READY)
	$(BIN)/python .ci/package.py

clean:
	rm -rf build dist site *.egg-info $(DEMO)
