# `make help` lists the targets. Any variable below can be given on the command line: make dump-teacher DATASET=msrvtt
DATASET  ?= demo
STUDENT  ?= afa
# The demo's motions are recognised in the moments that its clips describe, a dataset of their own. Who named no
# DATASET goes on having named none.
NAMED    := $(filter-out file,$(origin DATASET))
ifneq ($(filter demo-text4vis $(if $(filter recognition,$(TASK)),demo-side_network),$(DATASET)-$(STUDENT)),)
override DATASET := demo_motions
SEEDS    ?= 0
endif
# The demo's cache may hold several teachers. MCAD listens to two: the cross-encoder judged the best pairs of the
# batches that are trained on.
ifeq ($(DATASET)-$(origin CACHE),demo-undefined)
ROLES    = --teacher $(TEACHER) $(if $(filter mcad,$(STUDENT)),--role single_stream=demo_albef)
JUDGED   = $(if $(filter mcad,$(STUDENT)),demo-judged-batches)
endif
# The demo of a student that trains on pixels has a cache of its own: CLIP4Clip's signals, and the frames.
ifneq ($(filter demo-sab demo-side_network demo_motions-side_network,$(DATASET)-$(STUDENT)),)
TEACHER  ?= demo_clip4clip
CACHE    ?= caches/$(DATASET)-pixels.zarr
DUMP_ARGS := --keep-pixels raw
endif
# The side network's text tower goes on from that of the teacher that made the layers.
ifeq ($(DATASET)-$(STUDENT),demo-side_network)
WEIGHTS  ?= teacher_dump/weights/$(TEACHER).safetensors
TRAIN_ARGS := $(foreach model,model untaught_model,--set $(model).weights=$(WEIGHTS))
endif
ifeq ($(DATASET)-$(STUDENT),demo_motions-side_network)
RECIPE   ?= demo-recognition
endif
# Classes are recognised by the text of their names, which the demo's classifier reads.
ifeq ($(DATASET)-$(STUDENT),demo_motions-text4vis)
TEACHER  ?= demo_classes
CACHE    ?= caches/demo_motions-classes.zarr
DUMP_ARGS := --keep-pixels raw
endif
DATA     ?= data/$(DATASET)
CACHE    ?= caches/$(if $(filter table,$(DATASET)),$(basename $(notdir $(DATA))),$(DATASET)).zarr
TEACHER  ?= $(if $(filter demo table,$(DATASET)),demo,xclip)
CHECKPOINT ?= $(firstword $(filter-out %.resume,$(wildcard weights/$(TEACHER).*)))
# A cross-encoder pays for each pair: in the demo it scores the best of each row by the dual encoder alone.
PAIRS    ?= $(if $(filter demo_albef,$(TEACHER)),$(if $(findstring --p,$(ARGS))$(findstring --topk,$(ARGS)),,--topk 64 --plan $(DEMO_PLAN) --fused-cls --shortlist demo))
DEMO_PLAN := batch=100,epochs=4,seed=0,k=17
RECIPE   ?=
SEEDS    ?= 0,1,2
RUN      ?= runs/$(basename $(notdir $(CACHE)))-$(STUDENT)$(if $(RECIPE),-$(RECIPE))
JOBS     ?= 2
EXECUTOR ?= serial
CLIPS    ?= $(or $(SHARED),../shared)/data/videos
GOLDEN   ?= $(or $(SHARED),../shared)/golden
ARGS     ?=

# Inside a conda environment made from environment.yml its own Python is used, else a .venv that make sets up.
ifneq ($(and $(CONDA_PREFIX),$(wildcard $(CONDA_PREFIX)/lib/python3.*/site-packages/open_clip)),)
PY    := $(CONDA_PREFIX)/bin/python
READY :=
else
PY    := .venv/bin/python
READY := .venv/.ready
endif
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup dump-teacher demo-teachers fit-teacher train-student ablate evaluate report info fit-demo-teacher demo-judged-batches test test-slow test-golden test-clips bench-frames bench-store bench-side bench-encodings bench-dump bench-estimate bench-pairs bench-remote bench-train lint clean
MAKEFLAGS += --no-print-directory

help:            ## this list
	@echo "make TARGET [VARIABLE=value ...]"; echo
	@grep -hE '^[a-z][a-z-]*:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 20 | sed 's/^/  /'
	@echo; echo "variables, with their values now:"
	@$(foreach name,DATASET DATA CACHE TEACHER CHECKPOINT STUDENT RECIPE SEEDS RUN EXECUTOR JOBS CLIPS ARGS,printf '  %-12s %s\n' '$(name)' '$($(name))';)
	@echo "  ARGS goes to the command of the target: see $(PY) -m teacher_dump dump --help, -m student_train train --help"

setup: $(READY)  ## install what is needed (the other targets do it themselves)

dump-teacher: $(READY)    ## run TEACHER over DATASET and write its signals into CACHE; resumes, does nothing twice
	@$(PY) -m teacher_dump dump --dataset $(DATASET) --data "$(DATA)" --cache "$(CACHE)" --teacher $(TEACHER) \
	  $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") --executor "$(EXECUTOR)" $(PAIRS) $(ARGS)

demo-teachers: $(READY)   ## add every teacher of the demo to its cache: X-CLIP, CLIP4Clip, the motions' classifier, the cross-encoder
	@for teacher in demo demo_clip4clip demo_classes demo_albef; do $(MAKE) dump-teacher DATASET=demo TEACHER=$$teacher CHECKPOINT= || exit 1; done

# A cache at a URL is streamed (docs/streaming.md), and made by nobody here.
MADE     = $(if $(findstring ://,$(CACHE)),,$(CACHE)/manifest.json)

# A CACHE that was named without a DATASET is not made here: a mistyped name must not become a demo.
train-student: $(READY) $(if $(and $(filter command line environment,$(origin CACHE)),$(if $(NAMED),,yes)),,$(MADE)) $(JUDGED)    ## train STUDENT from CACHE (dumped first if it is not there) and print the table
	@$(PY) -m student_train $(if $(filter text4vis,$(STUDENT)),few-shot,train) "$(CACHE)" --out "$(RUN)" --student $(STUDENT) $(ROLES) $(if $(RECIPE),--recipe $(RECIPE)) --seeds "$(SEEDS)" $(TRAIN_ARGS) $(ARGS)

ifneq ($(MADE),)
$(MADE): | $(READY)
	@$(MAKE) dump-teacher ARGS="$(DUMP_ARGS)"
endif

demo-judged-batches: $(READY) | $(MADE)
	@$(MAKE) dump-teacher TEACHER=demo_albef CHECKPOINT= ARGS=

ablate: $(READY) $(if $(filter file,$(origin CACHE)),$(MADE)) $(JUDGED)    ## train the rows of STUDENT=sab's or mcad's ablation from CACHE alike, and print them beside the paper's
	@$(PY) -m student_train ablate "$(CACHE)" --out "$(RUN)-ablation" --student $(STUDENT) $(ROLES) $(if $(RECIPE),--recipe $(RECIPE)) --seeds "$(SEEDS)" $(ARGS)

evaluate: $(READY)        ## repeat the numbers of RUN from its saved students
	@$(PY) -m student_train evaluate "$(RUN)" $(ARGS)

report: $(READY)          ## the table and the picture of RUN once more
	@$(PY) -m student_train report "$(RUN)" $(ARGS)

info: $(READY)            ## what is inside CACHE
	@$(PY) -m store info "$(CACHE)" $(ARGS)

fit-teacher: $(READY)     ## fine-tune TEACHER on DATASET from CHECKPOINT; writes weights/TEACHER.safetensors unless ARGS says --out
	@$(PY) -m teacher_dump fit $(TEACHER) --dataset $(DATASET) --data "$(DATA)" $(if $(CHECKPOINT),--checkpoint "$(CHECKPOINT)") $(ARGS)

fit-demo-teacher: $(READY)    ## re-make the shipped weights of a teacher of the demo: demo (default), demo_clip4clip or demo_albef (minutes)
	@$(PY) -m teacher_dump fit $(if $(filter demo_%,$(TEACHER)),$(TEACHER),demo) --overwrite $(ARGS)

test: $(READY)            ## the tests (5 to 6 minutes on 2 cores)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not network" $(ARGS)

test-slow: $(READY)       ## kill, fault and server tests, and the re-making of the demo's teacher
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "slow and not gpu and not network" $(ARGS)

test-golden: $(READY)     ## every case in the folder GOLDEN of golden vectors against our models
	@$(PY) -m tests.golden "$(GOLDEN)"

test-clips: $(READY)      ## hold our frames of every clip in CLIPS=DIR to a plain decode in order
	@$(PY) -m tests.clips "$(CLIPS)" $(ARGS)

bench-frames: $(READY)    ## how fast clips decode, against bare decord and PyAV; writes bench-results/frames.json
	@$(PY) -m tests.bench.bench_frames $(ARGS)

bench-store: $(READY)     ## the store's speed against memcpy and other libraries (pip install '.[bench]' for those)
	@$(PY) -m tests.bench.bench_store $(ARGS)

bench-side: $(READY)      ## a side network's step from cached layers, from live ones, and full fine-tuning: memory and time
	@$(PY) -m tests.bench.bench_side $(ARGS)

bench-encodings: $(READY) ## what a side network of the demo loses if its layers are stored as int8, pooled or projected (minutes)
	@$(PY) -m tests.bench.bench_encodings --data "$(DATA)" $(ARGS)

bench-dump: $(READY)      ## a dump's wall time against the processor time of its stages; one worker against two
	@$(PY) -m tests.bench.bench_dump $(ARGS)

bench-estimate: $(READY)  ## what the estimate of the demo's dump says, in seconds and bytes, against that dump
	@$(PY) -m tests.bench.bench_estimate --data "$(DATA)" $(ARGS)

bench-pairs: $(READY)     ## what scoring pairs costs as texts or videos double
	@$(PY) -m tests.bench.bench_pairs $(ARGS)

bench-remote: $(READY)    ## epochs streamed from a URL against a local cache; writes bench-results/remote.json
	@$(PY) -m tests.bench.bench_remote $(ARGS)

bench-train: $(READY)     ## what teaching costs a training step: cached, resident, live; writes bench-results/train.json
	@$(PY) -m tests.bench.bench_train $(ARGS)

lint: $(READY)            ## ruff and mypy
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

clean:           ## delete the demo's clips, caches and runs (not .venv)
	rm -rf data/demo data/demo-fit data/demo_motions caches/demo.zarr caches/demo[-_]*.zarr runs/demo[-_]*

# What was installed is written into the stamp, so a mere change of file times installs nothing.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); give another with PYTHON=..."; exit 1; }
	@wanted=$$(cat pyproject.toml constraints.txt | cksum); \
	if [ "$$(cat $@ 2>/dev/null)" != "$$wanted" ]; then \
	  echo "setting up .venv (PyTorch and its libraries: about 5 GB, once) ..."; \
	  $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' \
	  && echo "$$wanted" > $@; \
	else touch $@; fi
