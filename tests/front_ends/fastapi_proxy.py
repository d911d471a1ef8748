"""A FastAPI app that streams a gateway's answers to its own HTTP clients.

pip install fastapi uvicorn ./gateway/client
GATEWAY=http://127.0.0.1:8765/ uvicorn --app-dir tests/front_ends fastapi_proxy:app
curl -N localhost:8000/chat --json '{"messages": [{"role": "user", "content": "Hello"}]}'
"""

import json
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from mlx_gateway_client import GatewayClient, GatewayError
from pydantic import BaseModel


class Question(BaseModel):
    messages: list[dict]
    max_tokens: int = 512


@asynccontextmanager
async def connected(app):
    async with GatewayClient(os.environ["GATEWAY"], give_up_s=10) as app.state.gateway:
        yield


app = FastAPI(lifespan=connected)


@app.post("/chat")
async def chat(question: Question):
    async def events():  # is left when the HTTP client goes away, and that cancels the generation
        try:
            async with app.state.gateway.generate(**question.model_dump()) as run:
                async for chunk in run:
                    yield event(chunk.channel or "text", chunk.text)
            yield event("done", run.done.finish_reason)
        except GatewayError as error:
            yield event("error", str(error))

    return StreamingResponse(events(), media_type="text/event-stream")


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
