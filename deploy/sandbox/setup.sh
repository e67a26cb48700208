#!/bin/sh
# Gives Podman user ids for sandboxes: each container gets 65,536 of its own. Needs root; safe to repeat.
set -eu
if [ "$(id -u)" -ne 0 ]; then
    echo "setup.sh: run as root, for example with sudo" >&2
    exit 1
fi
for file in /etc/subuid /etc/subgid; do
    if grep -q '^containers:' "$file" 2>/dev/null; then
        echo "$file: has a range for containers"
    else
        echo 'containers:2147483647:2147483648' >>"$file"
        echo "$file: added containers:2147483647:2147483648"
    fi
done
