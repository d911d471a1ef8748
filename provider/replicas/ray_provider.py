"""A provider whose replicas Ray Serve starts, watches and scales."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from provider.replicas.replicas_provider import ReplicasProvider

__all__ = ["RayProvider", "counts"]


class RayProvider(ReplicasProvider):
    """Generates on replicas that it has Ray Serve start when it is loaded.

    `config` has `ray`, the address of a cluster, None for Ray on this machine; `replicas`, a number
    or a range such as "1-3", in which Serve scales by load; with what replicas are started:
    `arguments` of `mlx-gateway serve`, and `environment`; and `scaling`, what `Started` has of it.
    """

    _grows = True

    def __init__(self, config: Mapping[Any, Any]):
        least, most = counts(str(config["replicas"]))
        rest = {name: value for name, value in config.items() if name not in OF_RAY}
        super().__init__(rest)
        # Imported here because ray takes seconds to import, and need not be installed.
        from provider.replicas.ray_serve import Serve, Started  # noqa: PLC0415

        arguments, environment = config.get("arguments", ()), config.get("environment", {})
        scaling = config.get("scaling", {})
        started = Started(tuple(arguments), dict(environment), least, most, **scaling)
        self._serve = Serve(config.get("ray"), started)

    async def load(self) -> None:
        """Start the replicas, and wait until one takes generations."""
        loop = asyncio.get_running_loop()

        def tell(urls: Mapping[str, str]) -> None:
            loop.call_soon_threadsafe(self.fleet.keep, urls)

        self.fleet.lease = self._serve.lease
        await asyncio.to_thread(self._serve.start, tell)
        await self.fleet.wait_ready()

    async def aclose(self) -> None:
        """Close the connections and end the replicas."""
        await super().aclose()
        await asyncio.to_thread(self._serve.stop)


OF_RAY = frozenset({"arguments", "environment", "ray", "replicas", "scaling"})


def counts(text: str) -> tuple[int, int | None]:
    """Return the least number of replicas, and the most in a range. Raises ValueError."""
    least, dash, most = text.partition("-")
    if not least.isdigit() or int(least) < 1 or (dash and not most.isdigit()):
        raise ValueError(f"`{text}` is no number of replicas, and no range such as 1-3")
    if dash and int(most) < int(least):
        raise ValueError(f"`{text}` is no range: {most} is less than {least}")
    return int(least), int(most) if dash else None
