#!/bin/sh
# Builds the sandbox image if it is not here yet and prints its name. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" -m services.sandbox_runner.image
