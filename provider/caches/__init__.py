"""KV caches: their kinds, their batches, and prefixes kept for prompts to come."""
