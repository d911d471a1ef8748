"""What all tests share: no deadlines in property tests, for machines are noisy."""

from hypothesis import settings

from provider.backend import mx  # noqa: F401 - before anything that imports mlx

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")
