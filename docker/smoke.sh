#!/usr/bin/env bash
# The API's image without Docker: its files and its requirements alone, then its commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$PWD/.venv/bin/python
folder=$(mktemp --directory)
server=
stop() {
	if [[ -n $server ]]; then kill -KILL "$server" 2>/dev/null || true; fi
	rm --recursive --force "$folder"
}
trap stop EXIT

mkdir "$folder/source" "$folder/empty"
sed --quiet 's/^!//p' .dockerignore \
	| xargs cp --recursive --parents --target-directory "$folder/source"
cd "$folder/source"
"$python" -m venv "$folder/venv"
"$python" docker/requirements.py server > "$folder/requirements.txt"
pip=("$folder/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check install)
"${pip[@]}" --constraint constraints.txt --requirement "$folder/requirements.txt"
"${pip[@]}" --no-deps .

# From here on nothing of the source folder can be found.
cd "$folder/empty"
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
run=(env --ignore-environment PATH=/usr/bin:/bin HOME="$folder/empty" SHORTFT_OFFLINE=1
	SHORTFT_DATA_DIR="$folder/data" SHORTFT_PORT="$port"
	SHORTFT_SECRET_KEY_FILE="$folder/secrets/api/secret_key" "$folder/venv/bin/python")

"${run[@]}" - <<'END'
import importlib
import importlib.util
import pkgutil

for name in ("torch", "diffusers", "transformers"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed"
for room in ("api", "store", "shortft_client"):
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
END
"${run[@]}" -m api.bootstrap secrets --folder "$folder/secrets"
"${run[@]}" -m api.bootstrap migrate --key-file "$folder/key" > /dev/null
"${run[@]}" -m api &
server=$!
"${run[@]}" - "http://127.0.0.1:$port" "$folder/key" <<'END'
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def get(path, **headers):
    request = urllib.request.Request(sys.argv[1] + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


for _ in range(120):
    try:
        get("/readyz")
        break
    except (urllib.error.URLError, ConnectionError):
        time.sleep(0.5)
key = Path(sys.argv[2]).read_text().strip()
models = json.loads(get("/models", Authorization=f"Bearer {key}"))
assert "shapes" in json.dumps(models), models
assert b"swagger" in get("/docs")
END
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
# It shuts down in order, then dies of the signal that it was sent.
[[ $status == 0 || $status == 143 ]]
echo "The API's image would start: no torch, /readyz, /models, /docs, and an orderly end."
