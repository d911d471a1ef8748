"""The WebSocket server: connections, admission, generations, plain GET answers."""
