"""Models by name: how they are found, loaded, served and unloaded."""
