"""The limit on the files that the process may have open, kept while mlx-lm is imported."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["limit_kept"]


@contextmanager
def limit_kept() -> Iterator[None]:
    """Ignore changes of the limit on open files within the block.

    mlx-lm sets it to 2048 when it is imported, and the limit up to which it may be raised to 4096.
    This overrides what a service file says, can't be undone, and fails where less is allowed.
    """
    set_limit = resource.setrlimit

    def ignore_open_files(limit: int, values: tuple[int, int]) -> Any:
        if limit != resource.RLIMIT_NOFILE:
            set_limit(limit, values)

    resource.setrlimit = ignore_open_files
    try:
        yield
    finally:
        resource.setrlimit = set_limit
