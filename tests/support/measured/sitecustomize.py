"""Measure a program that a test starts, in the test file's name.

Python imports this at its start where the folder is in PYTHONPATH.
"""

import atexit
import os


def measure():
    from tests.support.measuring import measuring, save_lines

    this = measuring(data_file=None)
    this.start()

    @atexit.register
    def save():
        this.stop()
        save_lines(this.get_data())


if "MEASURED_FOR" in os.environ:
    measure()
