"""The runs of one call of `generate`, one per choice, as a context manager."""

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
    """Submits the runs of one call, with one inbox for their events; leaving it cancels them.

    Creating it raises EngineClosedError if the model was unloaded, and the errors of
    `Engine.submit`.
    """

    def __init__(
        self, served: ServedModel, requests: Sequence[RunRequest], inbox: AsyncInbox | SyncInbox
    ):
        self.name = served.name
        self.requests = requests
        self.left = len(requests)  # number of runs that have not ended
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

    def receive(self, item: Any) -> tuple[RunEvent, int]:
        """Return the event in an item of the inbox, and the index of its run.

        A run that is parked because its events were not read is resumed.
        """
        if isinstance(item, tuple) and isinstance(item[0], ChoiceInbox):
            choice, event = item
            choice.count_taken(event)
            index, parked = choice.index, choice.parked
        else:
            event, index, parked = item, 0, self._inbox.parked
        if parked:
            self._engine.resume(self._runs[index])
        if isinstance(event, RunFinished):
            self.left -= 1
        return event, index

    def _cancel(self) -> None:
        for run in self._runs:
            self._engine.cancel(run)
