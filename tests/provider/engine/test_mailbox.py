"""What other threads tell an engine."""

from dataclasses import FrozenInstanceError, fields
from typing import get_args

import pytest

from provider.engine.inbox import SyncInbox
from provider.engine.mailbox import Cancel, CollectPrefix, Load, Message, Resume, Submit
from provider.engine.messages import RunRequest
from provider.engine.run import Run
from provider.options import GenerationOptions


def test_every_message_is_frozen_and_says_whom_it_is_about():
    run = Run(1, "m", RunRequest([1], GenerationOptions()), SyncInbox())
    assert set(get_args(Message)) == {Load, Submit, Cancel, Resume, CollectPrefix}
    for kind in (Submit, Cancel, Resume):
        message = kind(run)
        assert message.run is run
        with pytest.raises(FrozenInstanceError):
            message.run = None
    assert fields(Load) == fields(CollectPrefix) == ()
