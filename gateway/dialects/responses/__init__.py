"""OpenAI's Responses over WebSocket. No I/O."""
