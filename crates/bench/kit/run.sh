#!/bin/sh
# Checks and measures the GPU of this machine: ./run.sh [--small] [STAGE...]
#
# Each stage has its time limit, all of them together less than 7 minutes (with --small ten times as much). Results go to work/results.jsonl, one JSON object a
# line, errors to work/errors.log; tables come at the end, also if a stage failed. The exit code is 0 if nothing failed.
#
#   DIFFUSE_KIT_SMALL=1       as --small: small sizes, for a CPU that takes the place of a GPU
#   DIFFUSE_KIT_DEVICE=cuda:1 another device than the one the kit was built for
#   DIFFUSE_KIT_SECONDS=N     the time of all stages together
#   DIFFUSE_KIT_WORK=FOLDER   another folder than `work`
#   DIFFUSE_KIT_PYTHON=PYTHON the Python with torch and denoising-diffusion-pytorch, for the stage `torch`
set -u
cd "$(dirname "$0")" || exit 1
begin=$(date +%s)

# the stages with their limits in seconds; torch gets what is left
all="environment:20 start:60 kernels:80 same:30 speed:110 profile:40 memory:20 resume:15 pointers:20 torch:200"
small=
[ -n "${DIFFUSE_KIT_SMALL:-}" ] && small=--small
chosen=
for argument; do
    case "$argument" in
        --small) small=--small ;;
        *)
            case " $all " in
                *" $argument:"*) chosen="$chosen $argument" ;;
                *)
                    echo "error: there is no stage \`$argument\`; the stages are $(echo "$all" | sed 's/:[0-9]*/,/g; s/,$//')" >&2
                    exit 2
                    ;;
            esac
            ;;
    esac
done
[ -z "$chosen" ] && chosen=$(echo "$all" | sed 's/:[0-9]*//g')

# a CPU may take longer
slowness=1
[ -n "$small" ] && slowness=10
seconds=$((${DIFFUSE_KIT_SECONDS:-400} * slowness))
device=${DIFFUSE_KIT_DEVICE:-$(cat device)}
work=${DIFFUSE_KIT_WORK:-$PWD/work}
mkdir -p "$work" || exit 1
# compiled kernels stay in the work folder: ours, Mesa's, and the driver's
export XDG_CACHE_HOME="$work/cache" CUDA_CACHE_PATH="$work/cache/nvidia"
# without a CUDA toolkit where the program looks for one, the library that kernels are linked with is that of the kit
libdevice=nvvm/libdevice/libdevice.10.bc
if [ -z "${CUDA_PATH:-}" ] && [ -f "cuda/$libdevice" ]; then
    found=
    for toolkit in /usr/local/cuda /opt/cuda /usr/lib/cuda /usr; do
        [ -f "$toolkit/$libdevice" ] && found=$toolkit
    done
    [ -z "$found" ] && export CUDA_PATH="$PWD/cuda"
fi
results=$work/results.jsonl errors=$work/errors.log program=$work/bench
: >"$results" && : >"$errors" || exit 1

if ! [ "$program" -nt bench.xz ]; then
    xz -dc bench.xz >"$program.part" && chmod +x "$program.part" && mv "$program.part" "$program" && touch "$program" || exit 1
fi

for stage in $chosen; do
    limit=$(($(echo "$all" | tr ' ' '\n' | sed -n "s/^$stage://p") * slowness))
    left=$((seconds - ($(date +%s) - begin)))
    [ "$limit" -gt "$left" ] && limit=$left
    name="\"stage\":\"$stage\",\"name\":\"all\""
    if [ "$limit" -lt 5 ]; then
        echo "{$name,\"result\":\"skipped\",\"message\":\"no time was left\"}" >>"$results"
        continue
    fi
    echo "== $stage, at most $limit s"
    began=$(date +%s)
    # the program stops a little earlier, with a word about what is missing
    {
        timeout -k 5 "$limit" "$program" gpu "$stage" --device "$device" --kit . --work "$work" \
            --seconds $((limit - 2)) $small 2>>"$errors"
        echo $? >"$work/status"
    } | tee -a "$results"
    status=$(cat "$work/status")
    took=$(($(date +%s) - began))
    if [ "$status" = 0 ]; then
        echo "{$name,\"result\":\"ok\",\"seconds\":$took}" >>"$results"
    else
        tail -n 5 "$errors"
        message="ended with $status (124 or 137: its time was up); see errors.log"
        echo "{$name,\"result\":\"failed\",\"seconds\":$took,\"message\":\"$message\"}" >>"$results"
    fi
done
"$program" gpu table --work "$work"
status=$?
echo "$(($(date +%s) - begin)) s in all; the results are in $results"
exit $status
