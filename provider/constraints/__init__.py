"""Answers held to a form, token by token."""
