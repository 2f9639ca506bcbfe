#!/usr/bin/env bash
# Every figure of the pages that needs a GPU, as tables and in one file. How long it takes there is not known yet.
#
#     benchmarks/gpu.sh FILE [SECTION ...]               sections: all of those below, in their order
#     WHEELS=folder benchmarks/gpu.sh FILE               installs wheels first: nasjax's own and what it needs
#     DEVICE=cpu benchmarks/gpu.sh FILE                  a rehearsal with small sizes
#
# A bare machine has jax, flax, and torch for the evaluator's rivals, which also need the package `ofa`. nasjax runs from its
# wheel, not from the source folder. Every section has a time limit, and its failure does not stop the others.
set -u
file=$(realpath -m "${1:?usage: benchmarks/gpu.sh FILE [SECTION ...]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
on=${DEVICE:-gpu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -n "${WHEELS:-}" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$work/site" "$WHEELS"/*.whl || exit
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONUNBUFFERED=1 NASJAX_CACHE=$work/cache XLA_PYTHON_CLIENT_MEM_FRACTION=.45 # The rest is PyTorch's.
[ "$on" = cpu ] && export JAX_PLATFORMS=cpu
cd "$work" || exit

small=() sizes=(--size 224 --population 16 --calibration 500 --images 1000 --memory 40 --tf32)
other=(--size 64 --population 16 --calibration 500 --images 1000 --memory 40 --tf32)
evaluations=64 networks=84
if [ "$on" = cpu ]; then
    small=(--small) evaluations=20 networks=30
    sizes=(--size 32 --population 2 --calibration 20 --images 20 --batch 20)
    other=("${sizes[@]}")
fi

# -- sections: the name, and what it runs ------------------------------------------------------------------------------------

device() {
    if [ "$on" = gpu ]; then nvidia-smi -L; fi
    python3 -c 'import flax, jax; print("jax", jax.__version__, "flax", flax.__version__, jax.devices())'
    python3 -c 'import torch; print("torch", torch.__version__)'
}

random() { evaluator --kind random --strategies masked,prefix "${sizes[@]}"; }
evolved() { evaluator --kind evolved --strategies prefix "${sizes[@]}"; }
resnet() { evaluator --supernet ofa_resnet50 --kind random --strategies masked,prefix "${sizes[@]}"; }
pixels64() { evaluator --kind random --strategies masked,prefix "${other[@]}"; }
evaluator() { python3 "$here/evaluator.py" --device "$on" --rounds 1 "$@"; }

compiling() { # A full-size population's first result: with an empty cache, and with a full one in a new process.
    for _ in 1 2; do NASJAX_CACHE=$work/full python3 "$here/accelerator.py" first "${small[@]}"; done
}

kernels() { python3 "$here/accelerator.py" kernels prefix masked "${small[@]}"; }
overhead() { for _ in 1 2; do NASJAX_CACHE=$work/table python3 "$here/accelerator.py" overhead "${small[@]}"; done; }

step() { python3 "$here/step.py" --device gpu; } # The scan alone, on a CPU, too.

search() { # The digits: with an empty cache, and with a full one.
    for run in cold warm; do
        begun=$(date +%s.%N)
        NASJAX_CACHE=$work/digits python3 -m nasjax search evaluations=$evaluations run="$work/$run" --quiet || return
        python3 -c 'import sys; print(f"{sys.argv[1]}: {float(sys.argv[3]) - float(sys.argv[2]):.1f} s")' $run "$begun" "$(date +%s.%N)"
    done
}

latency() { # A table against networks, and the repeats of half of these.
    python3 "$here/../experiments/latency/here.py" "$work/l.csv" digits "$work/l.jsonl" "$work/again.jsonl" $networks "$on"
}

agreement() { # Losses and predictions on the CPU, then compared with those here.
    JAX_PLATFORMS=cpu python3 "$here/accelerator.py" agreement "$work/found.npz" --small
    python3 "$here/accelerator.py" agreement "$work/found.npz" --small
}

# ----------------------------------------------------------------------------------------------------------------------------

declare -A limits=([agreement]=120 [random]=110 [evolved]=70 [resnet]=90 [compiling]=120 [kernels]=90 [latency]=120)
sections=("$@")
[ $# = 0 ] && sections=(device random evolved kernels step search compiling overhead agreement resnet pixels64 latency)
export -f device random evolved resnet pixels64 evaluator compiling kernels overhead step search latency agreement
export here on work evaluations networks
mkdir -p "$(dirname "$file")"
: > "$file"
for section in "${sections[@]}"; do
    limit=${limits[$section]:-60}
    [ "$on" = cpu ] && limit=900
    began=$SECONDS
    echo "== $section" | tee -a "$file"
    timeout -k 5 "$limit" bash -c "$(declare -p small sizes other); $section" 2>&1 | tee -a "$file"
    status=${PIPESTATUS[0]}
    echo "-- $section: $((SECONDS - began)) s, exit code $status" | tee -a "$file"
done
