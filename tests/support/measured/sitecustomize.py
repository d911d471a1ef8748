"""Measure a program that a test starts, in the test file's name.

Python imports this at its start where the folder is in PYTHONPATH.
"""

import atexit
import os


def measure():
    from tests.support.measuring import CONTEXT, FOLDER, measuring_into

    if CONTEXT not in os.environ:
        return
    measuring = measuring_into(os.environ[FOLDER], context=os.environ[CONTEXT])
    measuring.start()

    @atexit.register
    def save():
        measuring.stop()
        measuring.save()


measure()
