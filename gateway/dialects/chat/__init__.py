"""AI SDK's chat over WebSocket."""
