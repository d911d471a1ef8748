#!/bin/sh
# Gets Debian's Firefox for the tests of front ends, where apt and root are. Says plainly if it could
# not; the tests that need it then skip.
command -v firefox-esr >/dev/null || command -v firefox >/dev/null && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing Firefox with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends firefox-esr; } >/dev/null 2>&1
    command -v firefox-esr >/dev/null && exit 0
fi
echo "NO FIREFOX COULD BE HAD: the tests of front ends in it will not run" >&2
exit 0
