"""Measure a program that a test starts, in the test file's name, also one that `os._exit` ends.

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

    own, leave = os.getpid(), os._exit

    def save_and_leave(status):
        if os.getpid() == own:  # not in a fork, which would save the lines of its parent
            save()
        leave(status)

    os._exit = save_and_leave


if "MEASURED_FOR" in os.environ:
    measure()
