"""One model on several machines, of which the first has the engine."""
