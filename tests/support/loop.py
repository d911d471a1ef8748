"""An event loop that refuses calls from other threads, which asyncio's debug mode does as well.

Debug mode also records a traceback for every callback and coroutine, and a test with many of them
takes up to six times as long.
"""

import asyncio
import threading


class CheckedLoop(asyncio.SelectorEventLoop):
    """Raises RuntimeError where a thread that isn't the loop's schedules something on it."""

    def __init__(self):
        self._thread = None
        super().__init__()

    def run_forever(self):
        self._thread = threading.get_ident()
        try:
            super().run_forever()
        finally:
            self._thread = None

    def call_soon(self, callback, *args, context=None):
        self._check_own_thread()
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        self._check_own_thread()
        return super().call_at(when, callback, *args, context=context)

    def _check_own_thread(self):
        if self._thread is not None and self._thread != threading.get_ident():
            raise RuntimeError("another thread than the event loop's must use call_soon_threadsafe")
