"""What a run asks for."""

from provider.engine.messages import RunRequest
from provider.options import GenerationOptions


def test_a_request_knows_how_long_prompt_and_answer_may_become():
    request = RunRequest(range(100), GenerationOptions(max_tokens=28))
    assert request.max_total_tokens == 128
    assert request.shared_prompt is None
