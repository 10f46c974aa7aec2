#!/usr/bin/env bash
# Installs a build into a fresh prefix and uses it from outside, by CMake package and by pkg-config.
# Usage: tests/install/run.sh BUILD_DIR [WORK_DIR]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
work=${2:-build/install-test}
rm -rf "$work"
mkdir -p "$work"
work=$(cd "$work" && pwd)
prefix=$work/prefix

cmake --install "$build" --prefix "$prefix" >"$work/install.log"
for file in bin/upg include/upg/engine.h; do
  [ -e "$prefix/$file" ] || { echo "install test: $file was not installed" >&2; exit 1; }
done
# The installed program runs by itself.
"$prefix/bin/upg" --help >/dev/null

cmake -S examples/consumer -B "$work/consumer" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
  >"$work/configure.log"
cmake --build "$work/consumer" >"$work/build.log" || { cat "$work/build.log" >&2; exit 1; }

"$work/consumer/shrink" models/demo "$work/demo.upg"
text=$("$work/consumer/generate" "$work/demo.upg" "The history of")
[ -n "$text" ] || { echo "install test: the consumer generated nothing" >&2; exit 1; }
echo "consumer by find_package: \"${text:0:60}...\""

# The prefix of upg.pc is the one that CMake was configured with: pkg-config is told where it really is.
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name upg.pc)")
relocate=(--define-variable=prefix="$prefix")
read -ra flags <<<"$(pkg-config "${relocate[@]}" --cflags --libs upg)"
"${CXX:-g++}" -std=c++20 examples/consumer/generate.cc -o "$work/generate_pc" "${flags[@]}"
library=$(pkg-config "${relocate[@]}" --variable=libdir upg)
other=$(LD_LIBRARY_PATH=$library "$work/generate_pc" "$work/demo.upg" "The history of")
[ "$other" = "$text" ] || { echo "install test: pkg-config's program says \"$other\"" >&2; exit 1; }
echo "consumer by pkg-config: the same"

cat >"$work/hub.cc" <<'CODE'
#include "upg/hub.h"
int main(int, char** argv) { return upg::resolve_model(argv[1]) == argv[1] && upg::is_model_name("a/b") ? 0 : 1; }
CODE
read -ra flags <<<"$(pkg-config "${relocate[@]}" --cflags --libs upg_hub)"
"${CXX:-g++}" -std=c++20 "$work/hub.cc" -o "$work/hub_pc" "${flags[@]}"
LD_LIBRARY_PATH=$library "$work/hub_pc" models/demo
echo "models by name: linked by pkg-config"
