#!/bin/sh
# Gets Debian's HAProxy for the test of gateways behind one, where apt and root are. Says plainly if it
# could not; the tests that need it then skip.
command -v haproxy >/dev/null && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing HAProxy with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends haproxy; } >/dev/null 2>&1
    command -v haproxy >/dev/null && exit 0
fi
echo "NO HAPROXY COULD BE HAD: the tests of gateways behind one will not run" >&2
exit 0
