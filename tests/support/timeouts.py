"""How long a test waits for what should happen at once; longer waits are multiples of it."""

TIMEOUT = 20.0  # seconds, for machines that are busy: waits are for conditions, not for time
STARTING = TIMEOUT * 3  # for what includes the start of an interpreter that may import mlx
