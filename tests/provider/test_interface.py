"""The interface is AbstractLLM's own, held against the real package in a process of its own.

A process of its own, because importing that package sets environment variables of the hub client.
"""

import json
import subprocess
import sys
import textwrap

import pytest

from provider.interface import (
    AbstractLLMInterface,
    GenerateResponse,
    Health,
    Message,
    ModelInfo,
    ModelParameter,
    with_defaults,
)
from tests.support.timeouts import TIMEOUT

COMPARE = """
import dataclasses, inspect, json
import abstractllm.enums, abstractllm.exceptions, abstractllm.interface, abstractllm.types
import abstractllm.tools.core
import provider.interface as ours

EMPTY = inspect.Parameter.empty

def shape(function):
    return [(p.name, str(p.kind), repr(p.default)) for p in
            inspect.signature(function).parameters.values()]

def fields(cls):
    return [(f.name, repr(f.default) if f.default is not dataclasses.MISSING else "-")
            for f in dataclasses.fields(cls)]

different = []
def same(what, left, right):
    if left != right:
        different.append([what, repr(left), repr(right)])

theirs = abstractllm.interface.AbstractLLMInterface
for name in ("__init__", "generate", "generate_async", "get_capabilities", "set_config",
             "update_config", "get_config", "get_param", "get_provider_params"):
    same(name, shape(getattr(ours.AbstractLLMInterface, name)), shape(getattr(theirs, name)))
same("abstract", ours.AbstractLLMInterface.__abstractmethods__, theirs.__abstractmethods__)
same("response", fields(ours.GenerateResponse), fields(abstractllm.types.GenerateResponse))
same("message", fields(ours.Message), fields(abstractllm.types.Message))
for name in ("ToolDefinition", "ToolCall", "ToolResult", "ToolCallResponse"):
    same(name, fields(getattr(ours, name)), fields(getattr(abstractllm.tools.core, name)))
for name in ("ModelParameter", "ModelCapability", "MessageRole"):
    same(name, {m.name: m.value for m in getattr(ours, name)},
         {m.name: m.value for m in getattr(abstractllm.enums, name)})
errors = {n: c for n, c in vars(abstractllm.exceptions).items()
          if inspect.isclass(c) and issubclass(c, Exception)}
for name, cls in errors.items():
    same(name, shape(getattr(ours, name).__init__), shape(cls.__init__))
    same(name + " bases", [c.__name__ for c in getattr(ours, name).__mro__],
         [c.__name__ for c in cls.__mro__])
def weather(city: str, days: int = 1, wind: bool | None = None) -> str:
    '''Tell the weather.

    In a city.'''
same("schema", ours.ToolDefinition.from_function(weather).to_dict()["name"], "weather")
from typing import Optional
def typed(city: str, days: Optional[int] = None, names: list = ()):
    '''Tell.'''
same("from_function", ours.ToolDefinition.from_function(typed).to_dict(),
     abstractllm.tools.core.ToolDefinition.from_function(typed).to_dict())
print(json.dumps({"different": different, "errors": len(errors)}))
"""


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=TIMEOUT * 3, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_names_signatures_fields_and_errors_are_those_of_abstractllm():
    result = json.loads(run_python(COMPARE).splitlines()[-1])
    assert result["different"] == []
    assert result["errors"] == 21


def test_mlx_provider_works_through_abstractllms_registry():
    code = """
    import asyncio, collections.abc, inspect, json
    from abstractllm import create_llm
    from abstractllm.interface import AbstractLLMInterface
    from abstractllm.enums import ModelParameter
    from abstractllm.providers.registry import register_provider
    from provider import MLXProvider
    AbstractLLMInterface.register(MLXProvider)
    register_provider("mlx-gateway", "provider.mlx_provider", "MLXProvider")
    llm = create_llm("mlx-gateway", **{ModelParameter.MAX_TOKENS: 8, "temperature": 0.0})
    async def main():
        assert inspect.iscoroutinefunction(type(llm).generate_async)
        stream = await llm.generate_async("Count from 2 to 30", stream=True)
        assert isinstance(stream, collections.abc.AsyncGenerator)
        text = "".join([delta.content async for delta in stream])
        whole = await llm.generate_async("Count from 2 to 30")
        return [text, whole.content, whole.usage["completion_tokens"], whole.finish_reason]
    text, whole, tokens, reason = asyncio.run(main())
    again = llm.generate("Count from 2 to 30").content
    llm.close()
    print(json.dumps([isinstance(llm, AbstractLLMInterface), type(llm).__name__, text == whole,
                      again == whole, tokens, reason]))
    """
    result = json.loads(run_python(code).splitlines()[-1])
    assert result == [True, "MLXProvider", True, True, 8, "length"]


class Minimal(AbstractLLMInterface):
    """The least that can stand behind the gateway."""

    def generate(self, prompt, system_prompt=None, files=None, stream=False, tools=None, **kwargs):
        return GenerateResponse(content=prompt)

    async def generate_async(
        self, prompt, system_prompt=None, files=None, stream=False, tools=None, **kwargs
    ):
        return GenerateResponse(content=prompt)


def test_a_provider_without_extras_counts_as_ready_with_its_configured_model():
    minimal = Minimal({ModelParameter.MODEL: "some/model"})
    assert minimal.health() == Health(ready=True)
    assert minimal.models() == [ModelInfo("some/model")]
    assert Minimal().models() == [ModelInfo("default")]
    assert minimal.statistics() is None
    assert with_defaults(minimal) is minimal


async def test_a_provider_of_another_interface_gets_the_defaults_for_the_rest():
    class Foreign:
        get_config = Minimal().get_config
        get_capabilities = Minimal().get_capabilities
        generate = Minimal().generate
        generate_async = Minimal().generate_async

    AbstractLLMInterface.register(Foreign)  # which gives it no method
    provider = with_defaults(Foreign())
    await provider.load()
    assert provider.health().ready
    assert provider.generate("a").content == "a"
    assert (await provider.generate_async("b", stream=False)).content == "b"
    assert provider.get_capabilities() == Minimal().get_capabilities()
    await provider.aclose()


def test_enum_and_string_keys_are_one_key():
    minimal = Minimal({ModelParameter.TEMPERATURE: 0.5})
    assert minimal.get_param("temperature") == 0.5
    minimal.set_config(temperature=0.25)
    assert minimal.get_param(ModelParameter.TEMPERATURE) == 0.25


def test_a_calls_parameters_do_not_change_the_configuration():
    minimal = Minimal({"temperature": 0.5})
    params = minimal.get_provider_params({"temperature": 1.0}, "Be brief.", [])
    assert params["temperature"] == 1.0
    assert params[ModelParameter.SYSTEM_PROMPT] == "Be brief."
    assert minimal.get_config() == {"temperature": 0.5}


def test_the_interface_cannot_be_instantiated():
    with pytest.raises(TypeError, match="abstract"):
        AbstractLLMInterface()


def test_a_message_leaves_absent_fields_out():
    assert Message("user", "Hi").to_dict() == {"role": "user", "content": "Hi"}
    assert Message("tool", "4", name="add").to_dict()["name"] == "add"
