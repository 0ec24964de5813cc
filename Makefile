PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow lint docs results mutants
install: .venv/installed
.venv/installed: requirements.lock pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: install  # small nets train on a core each, or all on one GPU
	$(BIN)/python -m launch.local --config configs/study_demo.py \
		--workers $(if $(wildcard /proc/driver/nvidia/gpus/*),1,2)

test: install lint  # bytecode is written, or each of many subprocesses compiles anew
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

mutants: install
	$(BIN)/python tests/mutants.py --seed $(or $(SEED),1) --count $(or $(COUNT),100)

docs: install
	$(BIN)/mkdocs build -q

results: install  # DATA=FOLDER with nih64 and covid_cxr for the real radiographs
	PYTHONPATH=. $(BIN)/python benchmarks/results.py $(if $(DATA),--data $(DATA))
