"""The native protocol as plain data and state machines; no I/O."""
