"""What OpenAI's wire languages share."""
