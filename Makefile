# make demo | make smollm2 | make test | make lint | make install | make gguf      (PYTHON=python3.12 make ... for another interpreter)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
DEMO   := configs/nano.yaml
TEXT   ?= Hello world
SMOLLM2  := configs/smollm2.yaml
QUESTION ?= What is the capital of France?
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install gguf demo smollm2 test lint clean flite
.DELETE_ON_ERROR:

install: $(STAMP)

# The stamp is the last thing written: an install that was cut off has none and starts again from nothing.
$(STAMP): pyproject.toml requirements.txt constraints.txt
	rm -rf "$(VENV)"
	@"$(PYTHON)" -c "import ensurepip" 2>/dev/null \
		|| { [ "$$(id -u)" = 0 ] && apt-get install -y -qq python3-venv; } \
		|| { echo "error: $(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --progress-bar off -c constraints.txt -r requirements.txt -e ".[dev]"
	touch "$@"

# llama.cpp is built from source: some minutes, once. What reads pictures and sound in it is left out. Decoding reads all
# weights in their order: GCC can have them fetched before they are needed (docs/gguf.md); other compilers lack these options.
AHEAD := -fprefetch-loop-arrays --param prefetch-latency=1000 --param prefetch-min-insn-to-mem-ratio=1 \
	--param min-insn-to-prefetch-ratio=1
gguf: $(STAMP)
	@"$(BIN)/python" -c "import llama_cpp" 2>/dev/null || { \
		ahead="$$($(CC) $(AHEAD) -x c -c /dev/null -o /dev/null 2>/dev/null && echo "$(AHEAD)")"; \
		CFLAGS="$$CFLAGS $$ahead" CXXFLAGS="$$CXXFLAGS $$ahead" CMAKE_ARGS="$${CMAKE_ARGS:--DLLAVA_BUILD=OFF}" \
		"$(BIN)/python" -m pip install --quiet --progress-bar off -c constraints.txt -e ".[gguf]"; }

demo: $(STAMP)
	@set -e; \
	trained="$$("$(BIN)/audio-projection" train --config $(DEMO) --no-resume)"; \
	"$(BIN)/audio-projection" speak --config $(DEMO) --text "$(TEXT)" --output output.wav; \
	echo "The linear projector of the bundled nano stack was made here: $$trained"; \
	echo "Listen to $(CURDIR)/output.wav: \"$(TEXT)\""

# What is here already is not brought again; the fit takes a minute.
smollm2: $(STAMP)
	"$(BIN)/audio-projection" download --config $(SMOLLM2)
	"$(BIN)/audio-projection" fit --config $(SMOLLM2)
	"$(BIN)/audio-projection" speak --config $(SMOLLM2) --chat "$(QUESTION)" --output answer.wav

test: $(STAMP) flite
	"$(BIN)/python" -m pytest

# The teacher of the shipped voice: without it the tests of the evaluation's first rows are skipped.
flite:
	@command -v flite >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && { apt-get update -qq && apt-get install -y -qq flite; } >/dev/null 2>&1; } \
		|| echo "no flite here (apt-get install flite): the tests that speak with it are skipped" >&2

lint: $(STAMP)
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

clean:
	rm -rf "$(VENV)" runs output.wav answer.wav
