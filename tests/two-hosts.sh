#!/bin/sh
# Makes two hosts with a network between them out of network namespaces of this machine; needs root and iproute2.
#   two-hosts.sh up A B FOLDER [RATE]   makes hosts A and B, and FOLDER/agent, which starts a command on one of them in place of ssh:
#                                       mpirun --mca plm_rsh_agent FOLDER/agent --host A:1,B:1. RATE of the network, as in 1gbit.
#   two-hosts.sh down A B               removes them
# The folder $HIDDEN_FOLDER of the agent is an empty one on the host, and FOLDER/left lists its content at the end.
set -eu
action=$1 a=$2 b=$3
case $action in
up)
    folder=$4 rate=${5:-}
    for name in "$a" "$b"; do
        ip netns add "$name"
        ip -n "$name" link set lo up
        # ip netns exec lays it over /etc/hosts
        mkdir -p "/etc/netns/$name"
        printf '127.0.0.1 localhost\n10.77.0.1 %s\n10.77.0.2 %s\n' "$a" "$b" >"/etc/netns/$name/hosts"
    done
    ip link add veth netns "$a" type veth peer name veth netns "$b"
    ip -n "$a" addr add 10.77.0.1/24 dev veth
    ip -n "$b" addr add 10.77.0.2/24 dev veth
    for name in "$a" "$b"; do
        ip -n "$name" link set veth up
        [ -z "$rate" ] || tc -n "$name" qdisc add dev veth root tbf rate "$rate" burst 512k latency 100ms
    done
    cat >"$folder/agent" <<AGENT
#!/bin/sh
host=\$1
shift
hidden=\${HIDDEN_FOLDER:-}
exec ip netns exec "\$host" unshare --uts --mount sh -c "hostname \$host
    [ -z '\$hidden' ] || { mount -t tmpfs tmpfs '\$hidden' && cd '\$hidden'; }
    \$*
    status=\\\$?
    [ -z '\$hidden' ] || find '\$hidden' >'$folder/left'
    exit \\\$status"
AGENT
    chmod +x "$folder/agent"
    ;;
down)
    for name in "$a" "$b"; do
        ip netns pids "$name" | xargs -r kill -KILL || true
        ip netns del "$name" || true
        rm -rf "/etc/netns/$name"
    done
    ;;
*)
    echo "two-hosts.sh: $action is neither up nor down" >&2
    exit 2
    ;;
esac
