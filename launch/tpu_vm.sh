#!/usr/bin/env bash
# A pretraining on Cloud TPU VMs (v2 to v6e), from any machine where gcloud is logged in.
#
#   bash launch/tpu_vm.sh COMMAND NAME [OPTIONS] [-- PRETRAIN OPTIONS]
#
#   run     all that is missing of create and setup, then pretrain on every host; lost
#           machines (--spot) are asked for again and the run goes on, until it is done
#   create  ask for the machines in the queue, and wait for them
#   setup   install this checkout on every host (again after you changed it)
#   logs    follow the output of the first host
#   stop    save and leave: `run` ends with 75
#   delete  give the machines back: they cost money until then
#
#   --type TYPE        accelerator type, such as v5litepod-16 (run, create)
#   --slices N         that many slices of it, as one job (the same for every command)
#   --spot             cheaper machines that may be taken away at any time
#   --runtime VERSION  image of the machines; by default the one that belongs to TYPE
#
# Project and zone are those of `gcloud config`. In PRETRAIN OPTIONS folders are in a bucket
# (--data gs://... --out gs://...): a machine that is taken away takes its disk along.
set -euo pipefail
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "tpu_vm.sh: bash $BASH_VERSION is too old: 4.4 or later is needed" >&2
    exit 2
}
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
pause=${TPU_VM_PAUSE:-30}
tries=5

fail() {
    echo "tpu_vm.sh: $1" >&2
    exit 2
}

[ "${1:-}" != --help ] && [ "${1:-}" != -h ] || {
    sed -n '2,/^set /{/^#/{s/^# \{0,1\}//;p;}}' "${BASH_SOURCE[0]}"
    exit
}
[ $# -ge 2 ] || fail "needs a command and a name (bash launch/tpu_vm.sh --help)"
command=$1 name=$2 type='' slices=1 spot=() runtime=''
shift 2
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "$name: a name has a-z, 0-9 and hyphens only"
while [ $# -gt 0 ]; do
    case $1 in
    --type | --slices | --runtime)
        [ $# -ge 2 ] || fail "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
    --spot)
        spot=(--spot)
        shift
        ;;
    --)
        shift
        break
        ;;
    *) fail "unknown option $1 (bash launch/tpu_vm.sh --help)" ;;
    esac
done
[[ $slices =~ ^[1-9][0-9]{0,2}$ ]] || fail "--slices $slices: give a number of slices"
[ "$command" != run ] || [ $# -gt 0 ] || fail "run needs PRETRAIN OPTIONS after --"
command -v gcloud >/dev/null || fail "gcloud is missing: install it and log in (docs/cloud-tpu.md)"
nodes=("$name") layout=(--node-id "$name")
if [ "$slices" -gt 1 ]; then
    nodes=()
    for ((i = 0; i < slices; i++)); do nodes+=("$name-$i"); done
    layout=(--node-count "$slices" --node-prefix "$name")
fi

image() {
    case $type in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "--type '$type': give v2-N to v4-N, v5litepod-N, v5p-N or v6e-N (7x: jobset.py)" ;;
    esac
}

# The state of the request; absent if there is none, unknown if nobody answers.
state() {
    local said
    if said=$(gcloud compute tpus queued-resources describe "$name" \
        --format 'value(state.state)' 2>&1); then
        tail -n 1 <<<"$said"
    elif [[ $said == *NOT_FOUND* ]]; then
        echo absent
    else
        echo "$said" >&2
        echo unknown
    fi
}

give_back() {
    gcloud compute tpus queued-resources delete "$name" --force --quiet
}

# Returns when the machines are there; asks for them as often as spot machines are lost.
create() {
    local now before=''
    while true; do
        now=$(state)
        [ "$now" = "$before" ] || echo "$name: $now" >&2
        before=$now
        case $now in
        ACTIVE) return ;;
        absent)
            [ -n "$runtime" ] || runtime=$(image)
            gcloud compute tpus queued-resources create "$name" "${layout[@]}" \
                --accelerator-type "$type" --runtime-version "$runtime" "${spot[@]}"
            ;;
        SUSPENDED)
            [ ${#spot[@]} -gt 0 ] || fail "$name was taken away; delete it and create it again"
            give_back
            ;;
        FAILED)
            fail "the request failed (gcloud compute tpus queued-resources describe $name), delete it"
            ;;
        *) sleep "$pause" ;;
        esac
    done
}

# on_all COMMAND: on every host of every slice at once.
on_all() {
    local node job jobs=() code=0
    for node in "${nodes[@]}"; do
        gcloud compute tpus tpu-vm ssh "$node" --worker all --batch-size all --quiet \
            --command "$1" </dev/null &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || code=1; done
    return "$code"
}

on_process_0() {
    gcloud compute tpus tpu-vm ssh "${nodes[0]}" --worker 0 --quiet --command "$1" </dev/null
}

setup() {
    local folder node
    folder=$(mktemp -d) || return
    tar -C "$root" -czf "$folder/albert_jax.tgz" --exclude __pycache__ \
        albert_jax configs launch setup.cfg pyproject.toml constraints.txt README.md LICENSE || return
    for node in "${nodes[@]}"; do
        gcloud compute tpus tpu-vm scp "$folder/albert_jax.tgz" "$node:" \
            --worker all --batch-size all --quiet || {
            rm -r -- "$folder"
            return 1
        }
    done
    rm -r -- "$folder"
    # The images come with an older Python than we need; uv brings one.
    on_all "set -e
        rm -f albert_jax/ready
        mkdir -p albert_jax && tar -xzf albert_jax.tgz -C albert_jax && cd albert_jax
        python3 -m pip install --quiet --user uv
        [ -e .venv ] || python3 -m uv venv --quiet --python 3.12 .venv
        python3 -m uv pip install --quiet --python .venv/bin/python \
            --constraint constraints.txt --editable '.[tpu,gcs]'" || return
    on_all "touch albert_jax/ready"
}

run() {
    local words code ready begin=start failures=0
    if [ "$slices" -gt 1 ]; then set -- "$@" --parallel.slice "$slices"; fi
    words=$(printf ' %q' pretrain "$@")
    while true; do
        create
        # No answer is not a no: the hosts may be running.
        ready=$(on_process_0 'test -e albert_jax/ready && echo yes || echo no' || true)
        case $ready in yes | no) ;; *)
            echo "$name: no answer, looking again" >&2
            if [ "$begin" = start ]; then failures=$((failures + 1)); fi
            [ "$failures" -lt "$tries" ] || fail "the hosts of $name do not answer: see above"
            sleep "$pause"
            continue
            ;;
        esac
        if [ "$ready" = no ]; then
            setup || {
                failures=$((failures + 1))
                [ "$failures" -lt "$tries" ] || fail "the hosts of $name cannot be set up: see above"
                sleep "$pause"
                [ "$(state)" = ACTIVE ] || failures=0
                continue
            }
        fi
        # Ends when the run has ended on every host, or when the connection is lost.
        on_all "bash albert_jax/launch/host.sh $begin$words && bash albert_jax/launch/host.sh follow" ||
            true
        begin=again # From now on a stop that was asked for counts.
        code=$(on_process_0 'bash albert_jax/launch/host.sh code' || echo none)
        case $code in
        stopped) exit 75 ;;
        0 | 2 | 3 | 4 | 5 | 7 | 70) exit "$code" ;;
        none) echo "$name: no answer, looking again" >&2 ;;
        *)
            # A host was lost (6), the machines are being taken away (75), or memory is short.
            failures=$((failures + 1))
            [ "$failures" -lt "$tries" ] || exit "$code"
            echo "$name: exit code $code, going on" >&2
            ;;
        esac
        sleep "$pause"
        if [ "$(state)" != ACTIVE ]; then failures=0; fi
    done
}

case $command in
run) run "$@" ;;
create) create ;;
setup) setup ;;
logs) on_process_0 'bash albert_jax/launch/host.sh follow' ;;
stop) on_all 'bash albert_jax/launch/host.sh stop' ;;
delete) give_back ;;
*) fail "unknown command $command (bash launch/tpu_vm.sh --help)" ;;
esac
