#!/usr/bin/env bash
# Two Ray nodes on this machine, to try a pipeline on a cluster before one is paid for.
#
#   two_nodes.sh up      start a head and a worker
#   two_nodes.sh env     print what a shell needs to use them: eval "$(two_nodes.sh env)"
#   two_nodes.sh down    stop these two, and no other Ray
#
# Settings, from the environment:
#   TWO_NODES_DIR      logs, sockets and process ids (/tmp/two-nodes-UID); keep it short: sockets live below
#   TWO_NODES_PORT     the head's port (6399); the next three are the dashboard's, where jobs are submitted,
#                      and those of the nodes' agents
#   HEAD_CPUS          CPUs of the head (1)
#   WORKER_CPUS        CPUs of the worker (1)
#   WORKER_GPUS        GPUs of the worker (0); made-up ones will do to see where steps go
#   WORKER_RESOURCES   further resources of the worker as JSON ({}): {"accelerator_type:L4": 1}
set -euo pipefail

folder=${TWO_NODES_DIR:-/tmp/two-nodes-$(id -u)}
port=${TWO_NODES_PORT:-6399}
address=127.0.0.1:$port
dashboard_port=$((port + 1))
nodes=(worker head) # in the order in which they are stopped

# Whoever can reach a Ray without a token runs code in it, and others may be logged in here.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=$folder/auth_token
unset RAY_AUTH_TOKEN RAY_ADDRESS

running() { # NODE: whether its `ray start` still runs
    [[ -f $folder/$1.pid ]] && kill -0 "$(<"$folder/$1.pid")" 2>/dev/null
}

start() { # NODE ARGUMENT...: start a node and wait until it is part of the cluster
    local node=$1
    shift
    ray start --block --disable-usage-stats --node-ip-address=127.0.0.1 "$@" >"$folder/$node.log" 2>&1 &
    echo $! >"$folder/$node.pid"
    until grep -q "Ray runtime started" "$folder/$node.log"; do
        if ! running "$node"; then
            echo "The $node did not start. $folder/$node.log says:" >&2
            tail -n 20 "$folder/$node.log" >&2
            down
            exit 1
        fi
        sleep 0.2
    done
}

up() {
    local node
    for node in "${nodes[@]}"; do
        if running "$node"; then
            echo "The $node in $folder runs already: stop it with '$0 down', or set TWO_NODES_DIR." >&2
            exit 1
        fi
    done
    mkdir -p "$folder"
    (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/auth_token")
    set -m # a process group of its own for each node: Ctrl-C in this terminal is not meant for them
    # Two agents of one machine need ports of their own: a head whose agent has none accepts no job.
    start head --head --port="$port" --temp-dir="$folder/ray" --num-cpus="${HEAD_CPUS:-1}" --num-gpus=0 \
        --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" \
        --dashboard-agent-listen-port="$((port + 2))"
    start worker --address="$address" --dashboard-agent-listen-port="$((port + 3))" \
        --num-cpus="${WORKER_CPUS:-1}" --num-gpus="${WORKER_GPUS:-0}" --resources="${WORKER_RESOURCES:-"{}"}"
    echo "Two nodes run at $address. To use them: eval \"\$($0 env)\"; to stop them: $0 down"
}

stop() { # PID: `ray start --block` ends the node's processes with itself; what does not heed that is killed
    local tries=100
    kill "$1"
    while kill -0 "$1" 2>/dev/null; do
        ((tries-- > 0)) || kill -KILL -- "-$1"
        sleep 0.2
    done
}

down() {
    local node
    for node in "${nodes[@]}"; do
        running "$node" || continue
        stop "$(<"$folder/$node.pid")"
        echo "Stopped the $node."
    done
    rm -f "$folder"/{head,worker}.pid "$folder/auth_token"
}

env() {
    printf 'export %s=%q\n' \
        RAY_ADDRESS "$address" \
        RAY_API_SERVER_ADDRESS "http://127.0.0.1:$dashboard_port" \
        RAY_AUTH_MODE token \
        RAY_AUTH_TOKEN_PATH "$RAY_AUTH_TOKEN_PATH"
}

case ${1:-} in
    up | down | env) "$1" ;;
    *)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
