# Each target sets up what it needs: `make train ARGS="task=softmax l2=2.0"` works as the first command on a fresh clone.
PYTHON ?= python3
BIN = .venv/bin
ARGS ?=

.PHONY: train exercise check quick test torture report bench lint lock tensorboard

train: .venv/ready
	$(BIN)/python train.py $(ARGS)

# Gradients to derive by hand, and what is right so far; 3 is the exit code while something is not.
exercise: .venv/ready
	@$(BIN)/python -m exercise $(ARGS) || [ $$? -eq 3 ]

# What is quick enough to be run before every commit; types are checked beside the tests, which seldom need both cores.
check: .venv/ready
	@$(MAKE) --no-print-directory -j 2 lint quick

quick: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow and not torture" $(ARGS)

test: .venv/ready lint
	$(BIN)/python -m pytest --cov -n 2 --dist worksteal $(ARGS)

torture: .venv/ready
	$(BIN)/python -m pytest -m torture $(ARGS)

report: .venv/ready
	$(BIN)/python -m report

bench: .venv/ready
	$(BIN)/python -m benchmarks $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tensorboard: .venv/ready
	$(BIN)/tensorboard --logdir outputs --host localhost $(ARGS)

# Renews the lock: every package by the hashes of its files.
lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
		--output-file requirements.lock requirements.txt

# The lock where it was made for, Linux on x86-64 with Python 3.11; elsewhere the pinned requirements. The lock names every
# package, so nothing is left to resolve: Python 3.11's pip (23.2) takes coverage[toml] for unpinned once a newer one is out.
TESTED = import platform as p; print(p.system(), p.machine(), *p.python_version_tuple()[:2])
.venv/ready: requirements.txt requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	if [ "$$($(PYTHON) -c '$(TESTED)')" = "Linux x86_64 3 11" ]; \
		then $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock; \
		else $(BIN)/python -m pip install --quiet -r requirements.txt; fi
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@
