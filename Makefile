# Each target sets up what it needs: `make train ARGS="task=softmax l2=2.0"` works as the first command on a fresh clone.
PYTHON ?= python3
BIN = .venv/bin
ARGS ?=

.PHONY: train test report lint tensorboard

train: .venv/ready
	$(BIN)/python train.py $(ARGS)

test: .venv/ready lint
	$(BIN)/python -m pytest $(ARGS)

report: .venv/ready
	$(BIN)/python -m src.report

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

tensorboard: .venv/ready
	$(BIN)/tensorboard --logdir outputs --host localhost $(ARGS)

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@
