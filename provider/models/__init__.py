"""Models by name: found, loaded, served, unloaded."""
