"""The runs of one call, as one context manager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from provider.engine.inbox import AsyncInbox, ChoiceInbox, SyncInbox
from provider.engine.messages import RunEvent, RunFinished, RunRequest
from provider.engine.run import Run
from provider.models.served_model import ServedModel

__all__ = [
    "Submission",
]


class Submission:
    """The runs of one call, whose events come to one inbox; a context manager that ends them.

    Raises EngineClosedError if the model was unloaded, and what `Engine.submit` raises.
    """

    def __init__(
        self, served: ServedModel, requests: Sequence[RunRequest], inbox: AsyncInbox | SyncInbox
    ):
        self.name = served.name
        self.requests = requests
        self.left = len(requests)  # runs that have not ended
        self._served = served
        self._engine = served.engine
        self._inbox = inbox
        self._runs: list[Run] = []
        try:
            for index, request in enumerate(requests):
                own = inbox if self.left == 1 else ChoiceInbox(index, inbox)
                self._runs.append(self._engine.submit(request, own))
        except BaseException:
            self._cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._cancel()
        self._served.touch()

    def take(self, given: Any) -> tuple[RunEvent, int]:
        """Return an event of the inbox, and the index of the run that it is of."""
        if isinstance(given, tuple) and isinstance(given[0], ChoiceInbox):
            branch, event = given
            branch.take(event)
            index, parked = branch.index, branch.parked
        else:
            event, index, parked = given, 0, self._inbox.parked
        if parked:
            self._engine.resume(self._runs[index])
        if isinstance(event, RunFinished):
            self.left -= 1
        return event, index

    def _cancel(self) -> None:
        for run in self._runs:
            self._engine.cancel(run)
