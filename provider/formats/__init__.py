"""What model families write and read: templates, thinking, tool calls."""
