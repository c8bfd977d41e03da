# make demo, make test, make check, make docs, make bench, make gpu: each sets up ./.venv first when it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two stamps: an environment in which the demo runs, and one in which everything does. A broken installation leaves none.
READY_DEMO := $(VENV)/.ready-demo
READY := $(VENV)/.ready
# Other versions: make test CONSTRAINTS=tests/versions/lowest.txt VENV=.venv-lowest (docs/versions.md).
CONSTRAINTS ?= constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install --constraint $(CONSTRAINTS)

.PHONY: demo test test-fast check api fuzz kills disks soak scale docs bench gpu model measure truth truth-short wheel clean

demo: $(READY_DEMO)
	$(BIN)/glas3d demo

# A process for each core (at most four, because each takes 2 GB), with one thread each: more would wait for each other.
# The tests of a file stay together, because they share fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	--durations 30 --durations-min 10

# `make test ROOM=imaging` runs one room: tests/imaging and the doctests of glas3d/imaging. ROOM=study/group and ROOM=output
# work in the same way.
ifdef ROOM
TESTED := $(wildcard tests/$(ROOM) glas3d/$(ROOM) $(dir tests/$(ROOM))test_$(notdir $(ROOM)).py glas3d/$(ROOM).py)
ifeq ($(TESTED),)
$(error ROOM must be a folder of glas3d/ or tests/, such as imaging or study/group, got '$(ROOM)')
endif
endif

test: $(READY)
	$(PYTEST) $(TESTED)

test-fast: $(READY)
	$(PYTEST) -m "not slow" $(TESTED)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Gives N inputs of no sense to everything that reads users' files (a million in about three hours on a core).
fuzz: N ?= 100000
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(N) docs/fuzz.tsv

# Other long suites with a record in docs/trust.md, which tests/endurance runs for seconds: N random signals to the processes
# of studies; each command on N disks that are full at another of its writes (as root); N tiny participants on two workers, and
# through both levels. `make scale MINUTES=60` resumes in .endurance.
kills: N ?= 200
disks: N ?= 20
soak: N ?= 2000
scale: N ?= 20000
MINUTES ?= 180
kills disks soak scale: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.endurance $@ $(N) --minutes $(MINUTES)

# Writes the record of the public names again, after a change that is intended (CONTRIBUTING.md, "What stays").
api: $(READY)
	$(BIN)/python -m tests.test_public_api
	$(BIN)/python packaging/write.py

# Builds the site into docs/_build/html and runs the examples for their pictures; every warning is an error.
# `make docs SPHINXOPTS="-D plot_gallery=0"` does not run them.
docs: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html $(SPHINXOPTS) docs docs/_build/html
	@echo "the site is docs/_build/html/index.html"

bench: $(READY)
	$(BIN)/python -m benchmarks

# What a GPU does with glas3d, in under nine minutes; the results are written to gpu-results/.
gpu: $(READY)
	PYTHON=$(BIN)/python bash benchmarks/gpu.sh gpu-results

# Trains the shipped model again and writes it to models/adnc-simulated (about half an hour on two cores).
model: $(READY)
	$(BIN)/python docs/measure/shipped_model.py

# Writes the measured pages of docs/ and README's picture again (two hours on two cores).
measure: $(READY)
	$(BIN)/glas3d demo
	cp glas3d-demo/group/group-AD_seg-AAL_regions.png docs/demo.png
	$(BIN)/python docs/measure/report_picture.py glas3d-demo/report.html docs/report.png
	$(BIN)/python docs/measure/darkness.py docs/darkness.md
	$(BIN)/python docs/measure/scales.py docs/scale.md 24
	$(BIN)/python docs/measure/references.py docs/references.md 8
	$(BIN)/python docs/measure/theory.py docs/theory.md
	$(BIN)/python docs/measure/method_figures.py docs/figures/light-and-shadow.png
	$(BIN)/python docs/measure/figures.py docs/figures 20
	$(BIN)/python docs/measure/scaling.py docs/scaling.md 1000
	$(BIN)/python docs/measure/coarse_to_fine.py docs/coarse_to_fine.md 4
	$(BIN)/python docs/measure/truncation.py docs/speed.md
	$(BIN)/python docs/measure/experiment.py docs/experiment.md 429 both
	$(BIN)/python docs/measure/regions_together.py docs/regions_together.md 20
	$(BIN)/python docs/measure/null_rates.py
	$(BIN)/python docs/measure/relabelling.py docs/relabelling.md 19
	$(BIN)/python docs/measure/photographs.py docs/photographs.md
	$(BIN)/python docs/measure/audits.py docs/audits.tsv
	$(BIN)/python docs/measure/literature.py docs/literature.tsv
	OMP_NUM_THREADS=1 $(BIN)/python docs/measure/individual.py docs/individual.md --cache .individual
	$(BIN)/python docs/measure/parity.py docs/parity.md 24

# Trains networks and measures which methods follow them; a run that was stopped goes on (at most eight hours on two cores).
truth: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python docs/measure/truth.py --cache .truth --hours 8 --workers 2

# The same design on a coarse grid, in five minutes at most; its page is .truth/short/truth.md.
truth-short: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python docs/measure/truth.py --cache .truth --short --hours 0.08 --workers 2

wheel: $(READY)
	$(BIN)/python -m build --wheel

$(READY_DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP_INSTALL) --editable ".[openvino]"
	@touch $@

# These extras do not install everywhere: antspyx and what deepbet needs lack wheels for some systems, and the opencv of quantus
# needs the libraries of a desktop. Tests that need one that is missing are skipped and say so; .ci/run insists on all.
$(READY): $(READY_DEMO)
	$(PIP_INSTALL) --editable ".[test,check,docs]"
	for extra in quantus register brain-mask; do \
		$(PIP_INSTALL) --editable ".[$$extra]" || echo "warning: the extra $$extra does not install here; its tests are skipped"; \
	done
	@touch $@

clean:
	rm -rf $(VENV) dist build glas3d-demo gpu-results docs/_build docs/generated
