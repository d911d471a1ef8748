"""TanStack AI's AG-UI over WebSocket."""
