#!/usr/bin/env bash
# Every figure of the pages that needs a GPU, as tables and in one file, within 8 minutes.
#
#     benchmarks/gpu.sh FILE [SECTION ...]               sections: all of those below, in their order
#     WHEELS=folder benchmarks/gpu.sh FILE               installs wheels first: nasjax's own and what it needs
#     DEVICE=cpu benchmarks/gpu.sh FILE                  a rehearsal with small sizes
#     TOTAL=900 benchmarks/gpu.sh FILE                   more seconds in all than 470
#
# A bare machine has jax, flax, and torch for the evaluator's rivals, which also need the package `ofa`. nasjax runs from its
# wheel, not from the source folder. Every section has a time limit, and its failure does not stop the others; what there was no
# time for is named in the end, to be run by a second command. Sections share compiled programs, but for those of first results.
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

small=() evaluations=64 networks=64
sizes=(--size 224 --population 16 --calibration 500 --images 1000 --memory 40 --tf32)
few=(--population 8 --calibration 500 --images 1000 --memory 40 --tf32)
if [ "$on" = cpu ]; then
    small=(--small) evaluations=20 networks=30
    sizes=(--size 32 --population 2 --calibration 20 --images 20 --batch 20)
    few=(--population 2 --calibration 20 --images 20 --batch 20)
fi

# -- sections: the name, and what it runs ------------------------------------------------------------------------------------

device() {
    if [ "$on" = gpu ]; then nvidia-smi -L; fi
    python3 -c 'import flax, jax; print("jax", jax.__version__, "flax", flax.__version__, jax.devices())'
    python3 -c 'import torch; print("torch", torch.__version__)'
}

# Full-size populations against PyTorch. `prefix` in 16 bits is compared with its losses in 32, in the last column.
random() { evaluator --kind random --strategies masked,prefix,prefix+precision=bfloat16 "${sizes[@]}"; }
evolved() { evaluator --kind evolved --strategies prefix,prefix+precision=bfloat16 "${sizes[@]}"; }
resnet() { evaluator --supernet ofa_resnet50 --kind random --strategies masked,prefix --size "$pixels" "${few[@]}"; }
pixels64() { evaluator --kind random --strategies masked,prefix --size "$less" "${few[@]}"; }
evaluator() { python3 "$here/evaluator.py" --device "$on" --rounds 1 --cache "$@"; }

warm() { accelerator first masked prefix auto; } # First results in a new process, from the programs of `random`.

# What `vmap` makes of convolutions, at 64 pixels; `masked` runs large networks one after the other where nothing is said.
forms() {
    for form in loop products library; do accelerator first "masked+at_once=true+vmapped=$form" --pixels 64 --networks 4; done
}

kernels() { accelerator kernels prefix masked; } # By kernel, beside bandwidth; what is not spent in them waits for the host.
precision() { accelerator precision; }           # On the trained digits: losses, standard errors, tau.

tactic() { # A table's search: the tactic alone, on the GPU and on the CPU.
    accelerator overhead
    JAX_PLATFORMS=cpu accelerator overhead
}

step() { python3 "$here/step.py" --device gpu; } # The scan alone, on a CPU, too.

search() { # The digits: with an empty cache, with a full one, and with the tactic on the CPU and an empty one.
    for run in cold warm beside; do
        more=() cache=$work/digits
        [ "$run" = beside ] && more=(tactic_device=cpu) cache=$work/beside
        begun=$(date +%s.%N)
        NASJAX_CACHE=$cache python3 -m nasjax search evaluations=$evaluations run="$work/$run" "${more[@]}" --quiet || return
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

compiling() { # First results of a full-size population with an empty cache, by how much XLA tries of every convolution.
    for level in 0 1 4; do
        echo "autotuning at level $level"
        XLA_FLAGS="${XLA_FLAGS:-} $(flag $level)" NASJAX_CACHE=$work/level$level accelerator first prefix --networks 4
    done
}

flag() { [ "$on" = gpu ] && echo "--xla_gpu_autotune_level=$1"; }
accelerator() { python3 "$here/accelerator.py" "$@" "${small[@]}"; }

# ----------------------------------------------------------------------------------------------------------------------------

# Seconds that a section may take; 25 where nothing is said.
declare -A limits=([random]=140 [evolved]=60 [kernels]=50 [search]=100 [tactic]=70 [resnet]=90 [pixels64]=60 [latency]=90
    [compiling]=110 [forms]=50 [warm]=40)
all=(device random evolved warm kernels step search precision tactic forms pixels64 resnet agreement latency compiling)
sections=("$@")
[ $# = 0 ] && sections=("${all[@]}")
pixels=224 less=64
[ "$on" = cpu ] && pixels=32 less=32
total=${TOTAL:-470}
[ "$on" = cpu ] && total=${TOTAL:-36000}
export -f device random evolved resnet pixels64 evaluator warm forms kernels precision tactic step search latency agreement \
    compiling flag accelerator
export here on work evaluations networks pixels less
mkdir -p "$(dirname "$file")"
: > "$file"
left=()
for section in "${sections[@]}"; do
    limit=${limits[$section]:-25}
    [ "$on" = cpu ] && limit=900
    [ $limit -gt $((total - SECONDS)) ] && limit=$((total - SECONDS))
    if [ "$limit" -lt 10 ]; then
        left+=("$section")
        continue
    fi
    began=$SECONDS
    echo "== $section" | tee -a "$file"
    timeout -k 5 "$limit" bash -c "$(declare -p small sizes few); $section" 2>&1 | tee -a "$file"
    status=${PIPESTATUS[0]}
    [ "$status" = 124 ] && left+=("$section")
    echo "-- $section: $((SECONDS - began)) s, exit code $status" | tee -a "$file"
done
[ ${#left[@]} = 0 ] || echo "not finished in time, for a second command: $0 OTHER_FILE ${left[*]}" | tee -a "$file"
