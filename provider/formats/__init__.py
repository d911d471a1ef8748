"""The text formats of model families: chat templates, thinking, tool calls."""
