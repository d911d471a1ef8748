"""What all tests share: no deadlines in property tests, for machines are noisy, and Ctrl-C."""

import signal

from hypothesis import settings

from provider.runtime.mlx import mx  # noqa: F401 - before anything that imports mlx

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")

# What a shell starts in the background ignores Ctrl-C, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
