# The interpreter, .venv and what the lock file lists. Sourced by deploy/setup.

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

# Prints the interpreter to use, or fails.
find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if have "$name" && fits "$name"; then
            echo "$name"
            return
        fi
    done
    return 1
}

# Prints what Python still lacks, as Debian packages; nothing when a virtual environment can be made.
missing_python() {
    local python version
    if venv_works; then
        return
    elif python=$(find_python); then
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
    else
        for version in 3.13 3.12 3.11; do
            if have apt-cache && apt-cache show "python$version-venv" >/dev/null 2>&1; then
                echo "python$version-venv"
                return
            fi
        done
        echo python3-venv
    fi
}

venv_works() { [ -x .venv/bin/python ] && fits .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null; }

# The stamp holds where and what was installed: a virtual environment cannot be moved.
ensure_python_packages() {
    local python at wanted stamp=.venv/.installed
    at=$(sed -n 1p "$stamp" 2>/dev/null) || at=$PWD
    wanted=$(printf '%s\n' "$PWD" && sha256sum deploy/lock/dev.txt pyproject.toml)
    if ! venv_works || [ "$at" != "$PWD" ]; then
        python=$(find_python) || die "no Python from 3.11 to 3.13 was found"
        say "creating .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    elif [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "installing $(grep -c == deploy/lock/dev.txt) packages as locked in deploy/lock/dev.txt"
    local pip=(.venv/bin/python -m pip install --quiet --progress-bar off)
    "${pip[@]}" --require-hashes --requirement deploy/lock/dev.txt </dev/null
    "${pip[@]}" --no-deps --no-build-isolation --editable . </dev/null
    echo "$wanted" >"$stamp"
}
