#!/bin/sh
# Gets a Chromium for the page's tests: one that is there, Debian's where apt and root are, else
# Playwright's own download. Says plainly if it could not; the tests that need it then skip.
set -u
find_chromium() {
    [ -n "${MLX_GATEWAY_CHROMIUM:-}" ] && return 0
    for name in chromium-headless-shell chromium chromium-browser google-chrome; do
        command -v "$name" && return 0
    done
    return 1
}
find_chromium >/dev/null && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing Chromium with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get install -y -qq --no-install-recommends"
    { apt-get update -qq && { $install chromium-headless-shell || $install chromium; }; } >/dev/null 2>&1
    find_chromium >/dev/null && exit 0
fi
echo "installing Playwright's chromium" >&2
"${PYTHON:-python3}" -m playwright install chromium >/dev/null 2>&1 && exit 0
echo "NO CHROMIUM COULD BE HAD: the tests of the page in a browser will not run" >&2
exit 0
