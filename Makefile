# `make help` prints the targets with the text behind ##.
PYTHON ?= python3
PY := .venv/bin/python
# A process a core; the tests of a file share what they set up, and tests/conftest.py orders the files.
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PIP := $(PY) -m pip --disable-pip-version-check
DATA ?=
TRAIN ?=
RECIPE ?= $(if $(DATA),mini,demo)
# A word for the shell, whatever the path holds.
quoted = '$(subst ','\'',$(1))'
COMPETITION := $(call quoted,$(if $(DATA),$(DATA),build/demo))
VALIDATION := $(if $(shell test -d $(COMPETITION)/validation && echo there),$(COMPETITION)/validation)
# The first soundscape that a submission could score; folders of recordings have none.
SOUNDSCAPE := $(shell find -L $(foreach of,test train unlabeled,$(COMPETITION)/$(of)_soundscapes) \
	-type f -print -quit 2>/dev/null | head -c 1)
RUN := $(call quoted,runs/$(RECIPE)$(if $(DATA),-$(shell basename $(COMPETITION))))
OUT := build/$(RECIPE)-submission.csv
# The demo's bar: its model beats chance clearly.
AT_LEAST := $(if $(DATA),0,0.90)
# `make lock`: its tool, and where that finds torch's CPU build. Offline from download.pytorch.org, name
# a folder with that wheel: make lock TORCH="--find-links DIR".
UV := uv==0.13.9
TORCH ?= --torch-backend cpu

.PHONY: help setup demo test quick lint docs bench kaggle-sim lock clean
.DELETE_ON_ERROR:

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## make .venv with the locked packages, and torch as the machine has it

# The locked packages come first: torch then finds what it depends on, and installs itself alone.
.venv/.ready: requirements.txt requirements-dev.txt requirements.lock submission/requirements.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	$(PIP) install --quiet $(shell grep '^torch==' requirements.txt)
	$(PIP) install --quiet --no-deps $(shell grep '^torchvision==' requirements.txt)
	touch $@

demo: setup ## train, export, submit offline, score and report, on the demo competition or DATA=DIR
ifeq ($(DATA),)
	$(PY) train/demo.py --out $(COMPETITION)
endif
	@$(MAKE) --no-print-directory train-and-submit RECIPE=$(RECIPE) DATA=$(call quoted,$(DATA))

# Apart from `demo`, so that its validation folder is looked for once the demo data is there.
.PHONY: train-and-submit
train-and-submit:
	$(PY) train/run.py --recipe $(RECIPE) --data $(COMPETITION) --out $(RUN) \
		$(if $(VALIDATION),--validation $(VALIDATION))
	$(PY) export/to_onnx.py $(RUN) --data $(COMPETITION) --fuse --out submission/model
	$(PY) export/to_openvino.py submission/model --data $(COMPETITION)
ifneq ($(VALIDATION),)
	$(PY) submission/run.py --data $(COMPETITION) --soundscapes $(VALIDATION)/soundscapes --out $(OUT)
	$(PY) train/metrics.py $(OUT) --validation $(VALIDATION) --at-least $(AT_LEAST)
else ifneq ($(SOUNDSCAPE),)
	$(PY) submission/run.py --data $(COMPETITION) --out $(OUT)
else
	@echo "no soundscapes there, so nothing to submit; next: python submission/detect.py RECORDINGS"
endif
	$(PY) train/report.py $(RUN)

test: setup ## all tests (14 minutes on two threads of a core)
	$(PYTEST)

quick: setup ## the tests without the slow ones
	$(PYTEST) -m "not slow"

lint: setup ## ruff and mypy
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: setup ## write the tables of settings and rooms in docs/ from the code
	$(PY) train/pages/settings_table.py docs/recipes.md
	$(PY) -m tests.docs.rooms docs/architecture.md

bench: setup ## measure the speed table of docs/speed.md on this machine (20 minutes); DATA=DIR
	$(PY) export/bench.py $(if $(DATA),--data $(COMPETITION)) --scaling \
		--json docs/bench.json --chart docs/bench.png --readme docs/speed.md

kaggle-sim: setup ## bundle the model and run it as Kaggle would, or train TRAIN=RECIPE so; ARGS: docs/commands.md
ifeq ($(TRAIN),)
	$(PY) export/bundle.py --owner someone --competition birdclef --out build/kaggle
	$(PY) export/kaggle_sim.py --data $(COMPETITION) $(ARGS)
else
	$(PY) export/kaggle_sim.py --train $(TRAIN) --data $(COMPETITION) $(ARGS)
endif

lock: ## write requirements.lock anew from the two lists of requirements (needs the internet)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet $(UV)
	sed -n '/^# /!q;p' requirements.lock > build/lock/head
	build/lock/bin/uv pip compile --quiet requirements.txt requirements-dev.txt --generate-hashes \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 $(TORCH) --no-header \
		--no-emit-package torch --no-emit-package torchvision --output-file build/lock/body
	cat build/lock/head build/lock/body > requirements.lock

clean: ## remove what was built and trained
	rm -rf build runs submission/model
