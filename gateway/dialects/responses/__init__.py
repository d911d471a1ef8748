"""OpenAI's Responses over WebSocket."""
