#!/bin/bash
# Run everything that needs a GPU, the most telling first; each part has its own time limit and its own file of results.
# usage: benchmarks/gpu/all.sh FOLDER [PART...]
# parts: check kernels parity tests steps memory http training compiled; without any, all of them
results=$1
shift
parts=${*:-check kernels parity tests steps memory http training compiled}
mkdir -p "$results"

part() { # part NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    [[ " $parts " == *" $name "* ]] || return 0
    timeout -k 5 "$limit" "$@" >"$results/$name.txt" 2>&1
    echo "== $name: exit status $? after $((SECONDS - start)) s of $limit"
    tail -n "${LINES_SHOWN:-40}" "$results/$name.txt"
}

export PYTHONUNBUFFERED=1
part check 60 python3 benchmarks/cuda_check.py
part kernels 60 python3 benchmarks/cuda_kernels.py
part parity 60 python3 benchmarks/cuda_parity.py
part tests 150 python3 -m pytest -q -p no:benchmark --device cuda -n 12 --dist worksteal \
    tests/serve/test_device_engine.py tests/model/test_golden.py tests/model/test_cells.py tests/export/formats/test_device.py \
    tests/model/test_paper_variants.py tests/model/test_markov.py tests/model/test_model.py tests/model/test_training.py \
    tests/serve/test_session_machine.py tests/serve/test_events.py tests/serve/test_interleaved.py
part steps 150 python3 benchmarks/cuda.py --json "$results/steps.json" --parts engine --rounds 3 \
    --hidden 512 --hidden 128 --hidden 2048 --lanes 4 --lanes 1 --lanes 2 \
    --peers "engine, arrays" --peers "torch eager" --peers "torch CUDA graph" --peers onnxruntime
part memory 60 python3 benchmarks/cuda_memory.py
part http 60 python3 benchmarks/cuda.py --json "$results/http.json" --parts http --rounds 3
part training 120 python3 benchmarks/cuda.py --json "$results/training.json" --parts training --rounds 3
part compiled 120 python3 benchmarks/cuda.py --json "$results/compiled.json" --parts engine --rounds 3 \
    --hidden 512 --lanes 4 --peers torch.compile
