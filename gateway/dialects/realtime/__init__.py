"""The text of OpenAI's Realtime over WebSocket."""
