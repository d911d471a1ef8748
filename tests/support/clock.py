"""A clock that tests set by hand."""


class Clock:
    """Returns `now`, in seconds, which a test sets."""

    now = 0.0

    def __call__(self):
        return self.now
