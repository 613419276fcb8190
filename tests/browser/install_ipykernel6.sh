#!/bin/sh
# Put ipykernel 6 beside the installed one, into build/ipykernel6, for the test of a kernel without subshells.
set -e
target="$(dirname "$0")/../../build/ipykernel6"
[ -d "$target/ipykernel" ] || "${PYTHON:-python3}" -m pip install --quiet --no-deps --target "$target" "ipykernel>=6.29,<7"
