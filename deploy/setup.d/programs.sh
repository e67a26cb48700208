# Programs that Millrace starts or needs, by their Debian packages. Sourced by deploy/setup.

# Prints the packages that are missing, one a line. Asked by program, so that other ways to install count.
missing_packages() {
    have git || echo git
    have podman || echo podman
    # crun does not start where cgroups are not of version 2 alone; runc starts everywhere
    have runc || { have crun && [ -e /sys/fs/cgroup/cgroup.controllers ]; } || echo runc
    have newuidmap || echo uidmap # user ids of their own for sandboxes
    have iptables || echo iptables # networks of containers in Podman 4 and older
    have debootstrap || echo debootstrap # the sandbox image's base where no registry can be reached
    missing_python
}

# 126 where there is no way to become root without a question that nobody answers.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 126
    fi
}

ensure_programs() {
    local missing
    if [ -n "${PYTHON:-}" ] && ! fits "$PYTHON"; then
        die "PYTHON=$PYTHON is not a Python from 3.11 to 3.13"
    fi
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! have apt-get; then
        say "this is not a Debian or Ubuntu system, so nothing is installed for you. Please install:"
        printf '    %s\n' "${missing[@]}" >&2
        die "(Debian's names; Python is needed in version 3.11, 3.12 or 3.13.) Then run this again."
    fi
    if ! as_root true; then
        say "missing: ${missing[*]}. Neither root nor sudo is usable here; run as root, then repeat:"
        die "    apt-get update && apt-get install --yes ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet -o DPkg::Lock::Timeout=300
        -o Acquire::Retries=3)
    as_root "${apt[@]}" update </dev/null || say "apt-get update failed; trying with the lists that are here"
    as_root "${apt[@]}" install --yes "${missing[@]}" </dev/null >.cache/apt.log 2>&1 || {
        tail -n 5 .cache/apt.log >&2
        die "apt-get could not install ${missing[*]}; all it said is in .cache/apt.log"
    }
    hash -r
    mapfile -t missing < <(missing_packages)
    [ "${#missing[@]}" -eq 0 ] || die "installed, and still not found on PATH: ${missing[*]}"
}
