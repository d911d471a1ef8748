"""AG-UI over WebSocket, as TanStack AI speaks it. No I/O."""
