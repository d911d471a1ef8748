"""AI SDK's chat over WebSocket. No I/O."""
