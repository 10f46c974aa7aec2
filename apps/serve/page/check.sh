#!/usr/bin/env bash
# Types, unit tests, the page in a browser, and whether the committed dist/index.html is what the sources give.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
npm ci --silent
npm run -s check
npm test
committed=$(mktemp)
trap 'rm -f "$committed"' EXIT
cp dist/index.html "$committed"
npm run -s build
cmp dist/index.html "$committed" || { echo "check.sh: dist/index.html is not what the sources give" >&2; exit 1; }
npm run -s e2e
