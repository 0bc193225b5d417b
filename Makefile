# Each target sets up what it needs: `make train ARGS="task=softmax l2=2.0"` works as the first command on a fresh clone.
PYTHON ?= python3
BIN = .venv/bin
ARGS ?=

.PHONY: train test report bench lint tensorboard

train: .venv/ready
	$(BIN)/python train.py $(ARGS)

test: .venv/ready lint
	$(BIN)/python -m pytest $(ARGS)

report: .venv/ready
	$(BIN)/python -m src.report

bench: .venv/bench-ready
	$(BIN)/python -m benchmarks $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

tensorboard: .venv/ready
	$(BIN)/tensorboard --logdir outputs --host localhost $(ARGS)

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/bench-ready: .venv/ready benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@
