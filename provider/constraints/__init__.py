"""Constrained decoding: JSON Schemas, grammars, tool calls and thinking budgets as token masks."""
