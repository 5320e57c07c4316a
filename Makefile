# make demo [DATA=DIR]   train, export, submit offline and score, on the demo competition or DIR
# make test              all tests; make quick: without the slow ones
# make lint              ruff and mypy
# make kaggle-sim        the submission as Kaggle runs it, on its Pythons, without network
# make bench [DATA=DIR]  the speed table of README, measured on this machine (20 minutes)
PYTHON ?= python3
PY := .venv/bin/python
DATA ?=
RECIPE ?= $(if $(DATA),mini,demo)
COMPETITION := $(if $(DATA),$(DATA),build/demo)
VALIDATION := $(wildcard $(COMPETITION)/validation)
RUN := runs/$(RECIPE)
OUT := build/$(RECIPE)-submission.csv
# The demo's bar: its model beats chance clearly.
AT_LEAST := $(if $(DATA),0,0.90)

.PHONY: demo test quick lint bench kaggle-sim setup clean
.DELETE_ON_ERROR:

setup: .venv/.ready

.venv/.ready: requirements.txt submission/requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
ifeq ($(DATA),)
	$(PY) train/demo.py --out $(COMPETITION)
endif
	@$(MAKE) --no-print-directory train-and-submit RECIPE=$(RECIPE) DATA=$(DATA)

# Apart from `demo`, so that its validation folder is looked for once the demo data is there.
.PHONY: train-and-submit
train-and-submit:
	$(PY) train/run.py --recipe $(RECIPE) --data $(COMPETITION) --out $(RUN) \
		$(addprefix --validation ,$(VALIDATION))
	$(PY) export/to_onnx.py $(RUN) --data $(COMPETITION) --out submission/model
	$(PY) export/to_openvino.py submission/model --data $(COMPETITION)
ifeq ($(VALIDATION),)
	$(PY) submission/run.py --data $(COMPETITION) --out $(OUT)
else
	$(PY) submission/run.py --data $(COMPETITION) --soundscapes $(VALIDATION)/soundscapes --out $(OUT)
	$(PY) train/metrics.py $(OUT) --validation $(VALIDATION) --at-least $(AT_LEAST)
endif

test: setup
	$(PY) -m pytest

quick: setup
	$(PY) -m pytest -m "not slow"

lint: setup
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: setup
	$(PY) export/bench.py $(if $(DATA),--data $(DATA)) --scaling \
		--json docs/bench.json --chart docs/bench.png --readme README.md

# Kaggle on this machine: bundle the model, run its notebook as Kaggle would. ARGS: see --help.
kaggle-sim: setup
	$(PY) export/bundle.py --owner someone --competition birdclef --out build/kaggle
	$(PY) export/kaggle_sim.py --data $(COMPETITION) $(ARGS)

clean:
	rm -rf build runs submission/model
