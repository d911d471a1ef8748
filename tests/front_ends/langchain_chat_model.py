"""A LangChain chat model on a gateway: invoke, stream, tools, with asyncio and without.

    pip install langchain-core ./gateway/client

Leaving a stream early stops the model.
"""

from langchain_core.language_models.chat_models import BaseChatModel, generate_from_stream
from langchain_core.messages import AIMessageChunk, convert_to_openai_messages
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.function_calling import convert_to_openai_tool
from mlx_gateway_client import GatewayClient
from mlx_gateway_client.blocking import SyncClient
from mlx_gateway_client.protocol.frames import Chunk


class GatewayChatModel(BaseChatModel):
    url: str = "http://127.0.0.1:8765/"
    fields: dict = {}  # noqa: RUF012 - pydantic copies it; of `generate`, such as `temperature`

    @property
    def _llm_type(self):
        return "mlx-gateway"

    def bind_tools(self, tools, **options):
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **options)

    def _generate(self, messages, stop=None, run_manager=None, **fields):
        return generate_from_stream(self._stream(messages, stop, run_manager, **fields))

    def _stream(self, messages, stop=None, run_manager=None, **fields):
        with SyncClient(self.url) as client:
            for frame in client.frames(**self._asked(messages, stop, fields)):
                yield part(frame)

    async def _astream(self, messages, stop=None, run_manager=None, **fields):
        async with GatewayClient(self.url) as client:
            async with client.generate(**self._asked(messages, stop, fields)) as run:
                async for frame in run.frames():
                    yield part(frame)

    def _asked(self, messages, stop, fields):
        fields = {**self.fields, **fields, "stop": stop}
        return {"messages": convert_to_openai_messages(messages), **fields}


def part(frame):
    if isinstance(frame, Chunk) and frame.channel:
        message = AIMessageChunk("", additional_kwargs={"reasoning_content": frame.text})
    elif isinstance(frame, Chunk):
        message = AIMessageChunk(frame.text)
    else:
        call_id = frame.call_id if frame.name else None  # LangChain joins the parts
        args, index = frame.arguments, frame.index
        call = tool_call_chunk(name=frame.name, args=args, id=call_id, index=index)
        message = AIMessageChunk("", tool_call_chunks=[call])
    return ChatGenerationChunk(message=message)
