#!/bin/sh
# Gets Debian's OpenBLAS, where apt and root are and the system has none. Says plainly if it could not;
# the tests then pass too, but take longer, most of all those of a real model.
python=${PYTHON:-python3}
has_openblas() {
    "$python" -c "import ctypes; ctypes.CDLL('libopenblas.so.0')" 2>/dev/null
}
[ "$(uname -s)" = Linux ] || exit 0
has_openblas && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing OpenBLAS with apt-get" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends libopenblas0-pthread; } >/dev/null 2>&1
    has_openblas && exit 0
fi
echo "NO OPENBLAS COULD BE HAD: what computes takes several times as long" >&2
exit 0
