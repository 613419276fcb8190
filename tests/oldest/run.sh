#!/usr/bin/env bash
# Run a part of the default suite on the oldest versions that pyproject.toml promises (constraints-oldest.txt), in an
# environment of its own: .venv-oldest. Arguments go to pytest in place of that part.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
VENV=${VENV_OLDEST:-.venv-oldest}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# What touches other packages most: loading, generating, quantising, schemas, magics, tables, files, widget, server.
PART=(
  test_architecture test_public_names test_config test_sources_load test_display_html test_display_overlay
  test_step test_packed test_windows test_prepared test_compiling test_scheduler test_scheduler_reuse
  test_demo_model test_chat test_schema test_structured test_quantization test_engine_families test_engine_openai
  test_magics_asking test_magics_values test_completion test_accessor test_batch test_export test_explorer
)

if [ ! -e "$VENV/.ready" ] || [ constraints-oldest.txt -nt "$VENV/.ready" ] || [ pyproject.toml -nt "$VENV/.ready" ]; then
  "$PYTHON" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet -c constraints-oldest.txt -e ".[pandas,openai,structured,peft,export]" \
    pytest pytest-timeout hypothesis nbclient nbconvert ipykernel pyarrow hatchling
  touch "$VENV/.ready"
fi
"$VENV/bin/python" -m pip check
if [ $# -eq 0 ]; then set -- "${PART[@]/#/tests/}"; set -- "${@/%/.py}"; fi
# Old packages on newer ones beneath them deprecate much; that is between them.
exec "$VENV/bin/python" -m pytest -W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning "$@"
