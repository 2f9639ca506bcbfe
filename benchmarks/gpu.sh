#!/usr/bin/env bash
# Every figure of the pages that needs a GPU, as tables and in one file.
#
#     benchmarks/gpu.sh FILE                             all sections, in their order, for at most 470 seconds (TOTAL=…)
#     benchmarks/gpu.sh FILE SECTION ...                 these sections, each for as long as it takes within that
#     WHEELS=folder benchmarks/gpu.sh FILE               installs wheels first: nasjax's own and what it needs
#     DEVICE=cpu benchmarks/gpu.sh FILE                  a rehearsal with small sizes
#
# A bare machine has jax, flax, and torch for the evaluator's rivals, which also need the package `ofa`. nasjax runs from its
# wheel, not from the source folder. The failure of a section does not stop the others; what there was no time for is named in
# the end, to be run by a second command, which finds the programs and latencies of the first in KEPT.
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
kept=${KEPT:-${TMPDIR:-/tmp}/nasjax-gpu}
mkdir -p "$kept"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_MEM_FRACTION=.45 # The rest is PyTorch's.
export JAX_COMPILATION_CACHE_DIR=$kept/programs JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
[ "$on" = cpu ] && export JAX_PLATFORMS=cpu
cd "$work" || exit

small=() evaluations=64 networks=84 pixels=224 less=64 limit=${TOTAL:-470}
sizes=(--population 16 --calibration 500 --images 1000 --memory 40 --tf32)
few=(--population 8 --calibration 500 --images 1000 --memory 40 --tf32)
if [ "$on" = cpu ]; then
    small=(--small) evaluations=20 networks=30 pixels=32 less=32 limit=${TOTAL:-36000}
    sizes=(--population 2 --calibration 20 --images 20 --batch 20)
    few=("${sizes[@]}")
fi

# -- sections: the name, and what it runs ------------------------------------------------------------------------------------

device() {
    if [ "$on" = gpu ]; then nvidia-smi -L; fi
    python3 -c 'import flax, jax; print("jax", jax.__version__, "flax", flax.__version__, jax.devices())'
    python3 -c 'import torch; print("torch", torch.__version__)'
}

# Full-size populations against PyTorch; the last column is the largest difference from the recipe's losses, both in TF32.
random() { evaluator --kind random --size "$pixels" --strategies prefix,masked "${sizes[@]}"; }
evolved() { evaluator --kind evolved --size "$pixels" --strategies prefix "${sizes[@]}"; }
resnet() { evaluator --supernet ofa_resnet50 --kind random --size "$pixels" --strategies prefix,masked "${few[@]}"; }
pixels64() { for kind in random evolved; do evaluator --kind $kind --size "$less" --strategies prefix "${few[@]}"; done; }
evaluator() { python3 "$here/evaluator.py" --device "$on" --rounds 1 "$@"; }

# The same networks at once, by `vmap`, in each form of convolutions.
together() {
    ways=masked+at_once=true,masked+at_once=true+vmapped=loop,masked+at_once=true+vmapped=products
    evaluator --kind random --size "$pixels" --strategies $ways "${few[@]}"
}

# Forms of batch norms, and 16 bits, beside what `random` had.
forms() {
    ways=prefix,prefix+one_pass=true,prefix+folded=true,prefix+precision=bfloat16,prefix+precision=bfloat16+folded=true
    evaluator --kind random --size "$pixels" --strategies $ways "${few[@]}"
}

warm() { accelerator first prefix masked auto; } # First results in a new process, from the programs of `random`.
kernels() { accelerator kernels prefix masked; } # By kernel, beside bandwidth; what is not spent in them waits for the host.
precision() { accelerator precision; }           # On the trained digits: losses, standard errors, tau.

tactic() { # A table's search: the tactic alone, on the GPU and on the CPU.
    accelerator overhead
    JAX_PLATFORMS=cpu accelerator overhead
}

step() { python3 "$here/step.py" --device gpu; } # The scan alone, on a CPU, too.

search() { # The digits: with an empty cache, with a full one, and with the tactic on the CPU and an empty one.
    for run in cold warm beside; do
        more=() cache=$work/programs
        [ "$run" = beside ] && more=(tactic_device=cpu) cache=$work/others
        before=$(find "$cache" -type f 2>/dev/null | wc -l) begun=$(date +%s.%N)
        JAX_COMPILATION_CACHE_DIR=$cache python3 -m nasjax search evaluations=$evaluations run="$work/$run" "${more[@]}" --quiet || return
        python3 -c 'import sys; print(f"{sys.argv[1]}: {float(sys.argv[3]) - float(sys.argv[2]):.1f} s, {sys.argv[4]} compiled files before")' \
            $run "$begun" "$(date +%s.%N)" "$before"
    done
}

latency() { # A table against 60 networks of the digits, and the repeats of half of these.
    python3 "$here/../experiments/latency/here.py" "$work/l.csv" digits "$kept/latency.jsonl" "$kept/again.jsonl" $networks "$on"
}

agreement() { # The same search on the CPU and here, in float32; then an extraction and its files, verified by the command itself.
    for device in cpu here; do
        platform=${JAX_PLATFORMS:-}
        [ $device = cpu ] && platform=cpu
        JAX_PLATFORMS=$platform python3 -m nasjax search evaluations=12 tactic=random evaluator.precision=float32 \
            run="$work/$device" --quiet || return
    done
    python3 "$here/accelerator.py" agreement "$work/cpu/evaluations.csv" "$work/here/evaluations.csv"
    exports=safetensors
    python3 -c 'import flatbuffers' 2>/dev/null && exports=stablehlo,safetensors
    python3 -m nasjax extract run="$work/here" select=knee export=$exports out="$work/knee"
}

compiling() { # First results of a full-size population with an empty cache, by how much XLA tries of every convolution.
    for level in 0 1 4; do
        echo "autotuning at level $level"
        flags="${XLA_FLAGS:-} $(flag $level)" # A space alone would be the name of a file to XLA.
        XLA_FLAGS=${flags# } JAX_COMPILATION_CACHE_DIR=$work/level$level accelerator first prefix --networks 4
    done
}

flag() { [ "$on" = gpu ] && echo "--xla_gpu_autotune_level=$1"; }
accelerator() { python3 "$here/accelerator.py" "$@" "${small[@]}"; }

# ----------------------------------------------------------------------------------------------------------------------------

all=(device random evolved warm kernels step search precision tactic agreement together forms pixels64 resnet latency compiling)
sections=("$@")
[ $# = 0 ] && sections=("${all[@]}")
export -f device random evolved resnet pixels64 evaluator together forms warm kernels precision tactic step search latency agreement \
    compiling flag accelerator
export here on work kept evaluations networks pixels less
mkdir -p "$(dirname "$file")"
: > "$file"
left=()
for section in "${sections[@]}"; do
    if [ $((limit - SECONDS)) -lt 10 ]; then
        left+=("$section")
        continue
    fi
    began=$SECONDS
    echo "== $section" | tee -a "$file"
    timeout -k 5 $((limit - SECONDS)) bash -c "$(declare -p small sizes few); $section" 2>&1 | tee -a "$file"
    status=${PIPESTATUS[0]}
    [[ $status = 124 || $status = 137 ]] && left+=("$section")
    echo "-- $section: $((SECONDS - began)) s, exit code $status" | tee -a "$file"
done
[ ${#left[@]} = 0 ] || echo "not finished in time, for a second command: $0 OTHER_FILE ${left[*]}" | tee -a "$file"
