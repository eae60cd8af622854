# Everything runs in .venv, which these targets make. `make help` lists them.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SEED ?= 0
MINUTES ?= 30
SEEDS ?= 3
# Reads and writes .pth files, and is needed for nothing else.
TORCH := torch==2.13.0

# Object stores' clients, and emulators of the stores.
STORES := gcsfs==2026.10.1 s3fs==2026.9.0 gcp-storage-emulator==2026.7.19 \
	"moto[s3,server]==5.2.5" botocore==1.43.117

.PHONY: help venv demo test test-slow test-convert test-stores soak claims lint

help:
	@echo "make demo       render the embedded data set, train, evaluate, detect (SEED=0)"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-convert  the tests of converting weights, which install PyTorch into .venv"
	@echo "make test-stores  the tests of gs:// and s3://, which install clients and emulators into .venv"
	@echo "make soak       trains, killed every 2 minutes, and again undisturbed (MINUTES=30)"
	@echo "make claims     the paper's claims on the embedded data set, hours (SEEDS=3)"
	@echo "make lint       ruff"
	@echo "make venv       the environment alone"

$(VENV)/installed: requirements.txt constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, found ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

venv: $(VENV)/installed

demo: venv
	$(RUN) -m benchmarks.demo --seed $(SEED) --data runs/data \
		--workdir runs/demo$(if $(filter-out 0,$(SEED)),_seed$(SEED))

# Side by side, the tests of a file together: they share what is made for them.
test: venv
	$(RUN) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-slow: venv
	$(RUN) -m pytest -m slow

test-convert: venv
	$(RUN) -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(RUN) -m pytest -m "slow or not slow" tests/convert

test-stores: venv
	$(RUN) -m pip install --quiet --disable-pip-version-check $(STORES)
	$(RUN) -m pytest -m "slow or not slow" tests/test_store_emulators.py tests/test_storage.py \
		tests/test_remote_checkpoints.py tests/test_object_store_run.py

soak: venv
	$(RUN) -m benchmarks.soak --minutes $(MINUTES) --data runs/data --output runs/soak --straight

claims: venv
	$(RUN) -m benchmarks.claims --seeds $(SEEDS) --output runs/claims

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
