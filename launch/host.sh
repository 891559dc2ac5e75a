#!/usr/bin/env bash
# On one host of a slice: runs `albert-jax`, once, so that it outlives the connection.
#
#   bash launch/host.sh start ARGUMENTS...   start it, unless it is running
#   bash launch/host.sh again ARGUMENTS...   the same, unless it was asked to leave
#   bash launch/host.sh follow               print its output until it ends
#   bash launch/host.sh stop                 ask it to save and leave
#   bash launch/host.sh code                 its exit code; "stopped" if it was asked to leave
#
# launch/tpu_vm.sh calls this. The files run.* beside the checkout's README belong to it.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

running() {
    [ -e run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null
}

case ${1:-} in
start | again)
    if running; then exit; fi
    if [ "$1" = again ] && [ -e run.stopped ]; then exit; fi
    shift
    rm -f run.code run.stopped
    # A session of its own. The shell survives SIGTERM to write down the code of its child, which
    # does what the signal asks for.
    # shellcheck disable=SC2016
    setsid bash -c 'trap : TERM; "$@"; echo $? >run.code' run \
        .venv/bin/albert-jax "$@" >>run.log 2>&1 </dev/null &
    echo $! >run.pid
    ;;
follow)
    [ -e run.pid ] || {
        echo "host.sh: nothing was started on this host yet" >&2
        exit 2
    }
    tail --lines 50 --follow --pid "$(cat run.pid)" run.log
    ;;
stop)
    touch run.stopped
    if running; then kill -TERM -- "-$(cat run.pid)"; fi
    ;;
code)
    if running; then
        echo none
    elif [ -e run.stopped ] && ! grep -qx 0 run.code 2>/dev/null; then
        echo stopped
    elif ! [ -e run.code ]; then
        echo none
    else
        cat run.code
    fi
    ;;
*)
    sed -n '2,/^set /{/^#/{s/^# \{0,1\}//;p;}}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
