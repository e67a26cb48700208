# What sandboxes need of the machine: user ids of their own, and the image. Sourced by deploy/setup.

readonly IDS_OF_A_SANDBOX=65536

# Whether a name or a user id has enough subordinate ids in both files (subuid(5)).
has_ids() {
    local file
    for file in /etc/subuid /etc/subgid; do
        awk -F: -v names="$*" -v least="$IDS_OF_A_SANDBOX" '
            BEGIN { split(names, list, " "); for (i in list) wanted[list[i]] = 1 }
            $1 in wanted { total += $3 }
            END { exit total < least }' "$file" 2>/dev/null || return 1
    done
}

ensure_user_ids() {
    local user
    if [ "$(id -u)" -eq 0 ]; then
        has_ids containers || deploy/sandbox/setup.sh >&2
        return
    fi
    user=$(id -un)
    has_ids "$user" "$(id -u)" && return
    local add=(usermod --add-subuids 200000-265535 --add-subgids 200000-265535 "$user")
    say "giving $user user ids for sandboxes"
    as_root "${add[@]}" || die "that needs root; run as root, then repeat: ${add[*]}"
    podman system migrate
}

# The module knows whether the image is there under the digest of its recipe.
ensure_image() {
    .venv/bin/python -m services.sandbox_runner.image >/dev/null ||
        die "the sandbox image could not be built; the lines above say what is missing"
}
