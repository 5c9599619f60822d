# Each target makes the virtual environment it needs; PYTHON picks the interpreter, VENV the place.
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Peers, each in an environment of its own: .venv-NAME of requirements-NAME.txt.
PEERS := $(patsubst requirements-%.txt,%,$(notdir $(wildcard tests/upstream/requirements-*.txt benchmarks/requirements-*.txt)))
UPSTREAM := $(patsubst tests/upstream/requirements-%.txt,.venv-%/.installed,$(wildcard tests/upstream/requirements-*.txt))
BENCHMARKS ?= $(filter-out common gpu,$(basename $(notdir $(wildcard benchmarks/*.py))))

.PHONY: demo web test slow long published versions versions-lowest versions-highest backends interop bench docs dist gpu-wheels lint format

demo: $(STAMP)
	$(BIN)/lxmert-tf demo --output demo --overwrite

web: $(STAMP)
	[ -f demo/answer.png -a -f demo/data/detector.json ] || $(MAKE) demo
	$(BIN)/lxmert-tf web --model demo/checkpoint --features demo/data/features.h5 --images demo/data/images \
	    --detector demo/data/detector.json

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow and not long and not published" --durations=25 $(PYTEST_FLAGS)

# In the order of the files: by their numbers of tests, those of one test that takes minutes would come last.
slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow --durations=25 $(PYTEST_FLAGS)

# Each task is learnt from scratch: for a release, and after changes of training.
long: $(STAMP)
	$(BIN)/python -m pytest -m long $(PYTEST_FLAGS)

# The numbers that upstream's authors published, with their weights: tests/published/README.md.
published: $(STAMP)
	$(BIN)/python -m pytest -s -rs -m published tests/published $(PYTEST_FLAGS)

# The ends of the ranges in pyproject.toml, each in an environment of its own.
versions: versions-lowest versions-highest

versions-lowest:
	tests/versions/run.sh 3.10 lowest .venv-lowest

versions-highest:
	tests/versions/run.sh 3.13 highest .venv-highest

# What Keras' users expect of any layer and model, on the other backends.
backends: $(STAMP) .venv-jax/.installed
	KERAS_BACKEND=torch $(BIN)/python -m pytest -n 2 tests/models/test_keras_contract.py $(PYTEST_FLAGS)
	KERAS_BACKEND=jax JAX_ENABLE_X64=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
		.venv-jax/bin/python -m pytest -n 2 tests/models/test_keras_contract.py $(PYTEST_FLAGS)

interop: $(STAMP) $(UPSTREAM)
	$(BIN)/python -m tests.upstream.run --write $(UPSTREAM:.installed=bin/python)
	.venv-transformers4/bin/python tests/upstream/names.py

bench: $(STAMP) $(PEERS:%=.venv-%/.installed)
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done

# The site, into site/, with Python 3.11 or newer; warnings, such as of dead links, are errors (not with --quiet). Pages
# open from the disk, too, but the search needs a server.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "To look at it: $(BIN)/python -m http.server -d site"

# The wheel and the sdist, into dist/, each tried in an environment that has nothing else than what it asks for.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m tests.release.run dist

# For `python benchmarks/gpu.py` on a machine with a GPU, JAX, PyTorch and transformers, and no network.
GPU_PYTHON ?= 3.12
gpu-wheels: $(STAMP)
	$(BIN)/pip download $(PIP_FLAGS) --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	    -r benchmarks/gpu-wheels.txt -d .gpu-wheels

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	touch $@

define install-peer
$(PYTHON) -m venv $(@D)
$(@D)/bin/pip install $(PIP_FLAGS) -r $<
touch $@
endef

.venv-%/.installed: tests/upstream/requirements-%.txt
	$(install-peer)

.venv-%/.installed: benchmarks/requirements-%.txt
	$(install-peer)

.venv-%/.installed: tests/backends/requirements-%.txt
	$(install-peer)
