# make demo, make test, make check, make bench: each sets up ./.venv first when it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-fast check bench model measure wheel clean

demo: $(READY)
	$(BIN)/glas3d demo

# A process a core (four at most, each takes 2 GB), each with one thread: more would wait for each other. A file's tests share what they have made.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks

# Trains the shipped model again and writes it to models/adnc-simulated (about half an hour on two cores).
model: $(READY)
	$(BIN)/python docs/measure/shipped_model.py

# Writes the measured pages of docs/ and README's picture again (two hours on two cores).
measure: $(READY)
	$(BIN)/glas3d demo
	cp glas3d-demo/group/group-AD_seg-AAL_regions.png docs/demo.png
	$(BIN)/python docs/measure/darkness.py docs/darkness.md
	$(BIN)/python docs/measure/scales.py docs/scale.md 24
	$(BIN)/python docs/measure/references.py docs/references.md 8
	$(BIN)/python docs/measure/theory.py docs/theory.md
	$(BIN)/python docs/measure/scaling.py docs/scaling.md 1000
	$(BIN)/python docs/measure/coarse_to_fine.py docs/coarse_to_fine.md 20
	$(BIN)/python docs/measure/experiment.py docs/experiment.md 429 both
	$(BIN)/python docs/measure/regions_together.py docs/regions_together.md 20

wheel: $(READY)
	$(BIN)/python -m build --wheel

# The environment is complete when the stamp is there; a broken installation leaves none.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[test,check]"
	@touch $@

clean:
	rm -rf $(VENV) dist build glas3d-demo
