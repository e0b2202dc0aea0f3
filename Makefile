# Every target makes its own environment on a fresh machine: `make ask` and `make test` need nothing but Python 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
VLLM_VENV ?= .venv-vllm
LMMS_VENV ?= .venv-lmms-eval
NEW_ENOUGH := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.11" >&2; exit 1; }

.PHONY: ask test test-all test-lmms-eval test-vllm test-media test-page fuzz-media bench bench-gpu bench-vllm lint fix train-tiny ablate-tiny ablate-world wheel

ask: $(READY)
	$(BIN)/minigpt4-video ask examples/clip.mp4 "What color is the triangle?"

test: $(READY)
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest

test-lmms-eval: $(LMMS_VENV)/.installed
	$(LMMS_VENV)/bin/python -m pytest tests/evaluation/test_lmms_eval.py

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python -m pytest -m "not slow" tests/model tests/inference tests/labelling/test_vllm_labels.py

test-page: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[browser]"
	$(BIN)/python -m pytest tests/serving/test_page.py tests/serving/test_page_in_browser.py -rs

test-media: $(READY)
	$(BIN)/python -m pytest tests/media -rs

fuzz-media: $(READY)
	$(BIN)/python tools/fuzz_media.py --minutes $(or $(MINUTES),30) $(addprefix --corpus ,$(wildcard ../shared/media))

bench: $(READY)
	$(BIN)/python benchmarks/world_accuracy.py
	$(BIN)/python benchmarks/inference.py --output benchmarks/results/inference.json
	$(BIN)/python benchmarks/decode_profile.py --output benchmarks/results/decode_profile.json
	$(BIN)/python benchmarks/training.py --output benchmarks/results/training.json
	$(BIN)/python benchmarks/serving.py --output benchmarks/results/serving.json
	$(BIN)/python benchmarks/evaluation.py --output benchmarks/results/evaluation.json
	$(BIN)/python benchmarks/labelling.py --output benchmarks/results/labelling.json
	$(BIN)/python benchmarks/labelling_student.py --output benchmarks/results/labelling_student.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/media.py --output benchmarks/results/media.json

bench-gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py --output benchmarks/results/gpu.json

bench-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python benchmarks/inference.py --vllm --output benchmarks/results/inference_vllm.json

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-tiny: $(READY)
	set -e; for stage in vision language stage1 stage2 stage3; do \
		$(BIN)/minigpt4-video train tiny/$$stage --output runs/tiny/$$stage --resume; done
	$(BIN)/python benchmarks/world_accuracy.py --model runs/tiny/stage3 --output benchmarks/results/tiny.json
	$(BIN)/python tools/embed_tiny.py runs/tiny/stage3 benchmarks/results/tiny.json

ablate-tiny: $(READY)
	$(BIN)/python benchmarks/ablate_tiny.py

ablate-world: $(READY)
	$(BIN)/minigpt4-video evaluate world --limit 840 --output runs/ablate-world --ablate frames=4,2,1 --ablate subtitles=off \
		--ablate "shown=no frames,nothing" --ablate rule=original --ablate template=demo,benchmark --ablate dtype=bfloat16
	cp runs/ablate-world/ablation.json benchmarks/results/ablation_world.json

wheel: $(READY)
	$(BIN)/python -m build --wheel

$(READY): pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(LMMS_VENV)/.installed: pyproject.toml constraints.txt constraints-lmms-eval.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(LMMS_VENV)
	$(LMMS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train]" pytest pytest-timeout pyarrow
	$(LMMS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-lmms-eval.txt
	@touch $@

$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints-vllm.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
