"""Ray Serve's half of replicas: it places, starts, watches and scales them.

Each replica of the deployment holds a process of its own with a whole gateway. Tokens go by our own
protocol from there. What goes through Serve is a call for each generation that isn't over at once,
which stays open until it is, so that Serve's counts are true, by which it scales and drains.

This is the only module that imports ray. RequestRouter is alpha there.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from provider.replicas import ray_news

__all__ = ["GatewayReplica", "NamedReplicaRouter", "Serve", "Started"]

# One of each machine with a gateway in front: it replaces what one that was killed has left.
APPLICATION = f"mlx-gateway-{socket.gethostname()}"
ONGOING = 1 << 16  # calls that Serve lets a replica have; the gateways have limits of their own
HEALTH_S = 1.0  # seconds between Serve's looks at a replica
STOP_S = 600.0  # seconds that a replica may take to end its generations: `generation_timeout`
START_S = 600.0  # seconds that a replica may take to load its model
OBJECT_BYTES = 1 << 27  # of Ray's store of objects, through which next to nothing goes
PR_SET_PDEATHSIG = 1
URL = "url"
SETTINGS = "MLX_GATEWAY_"
# Ray sets it to 1 for an actor that asks for no CPU, and a prompt is read by one thread then. The
# engine finds out by itself how many are best, unless whoever started the gateway in front says.
THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Started:
    """What replicas are started with: the arguments of `serve`, and its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    replicas: int = 1
    most_replicas: int | None = None  # to scale to by load, None for a fixed number
    target: float = 24.0  # answers that a replica should have
    grow_s: float = 5.0  # seconds of too much load before replicas are added
    shrink_s: float = 60.0  # seconds of too little load before some are removed
    look_s: float = 8.0  # seconds over which Serve averages the load


class NamedReplicaRouter(RequestRouter):
    """Routes each call to the replica that its first argument names, and tells who is there.

    Serve makes it from a copy of this class, so what it tells goes to another module.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the replica that the call is for, none while it isn't there."""
        name = pending_request.args[0] if pending_request is not None else None
        return [[one for one in candidate_replicas if one.replica_id.unique_id == name]]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Take the replicas that Serve routes to now, and tell of them."""
        super().update_replicas(replicas)
        urls = {one.replica_id.unique_id: one.replica_metadata.get(URL) for one in replicas}
        from provider.replicas import ray_news  # noqa: PLC0415 - not a copy of it

        ray_news.tell({name: url for name, url in urls.items() if url})


class GatewayReplica:
    """One replica: a gateway in a process of its own, and the calls that stand for generations."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ):
        secret = environment.get("MLX_GATEWAY_TOKENS", "")
        local = "RAY_LOCAL" in environment
        host = "127.0.0.1" if local else ray.util.get_node_ip_address()
        command = ["serve", "--as-replica", "--host", host, "--port", "0", *arguments]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**_of_own(os.environ), **environment},
            preexec_fn=_stop_with_parent,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = (await self._process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(f"the gateway did not start: {line!r}")
        self._url = f"{found[0]}#token={secret.partition(':')[2]}" if secret else found[0]

    def record_replica_metadata(self) -> dict[str, str]:
        """Return where the gateway is; Serve asks once."""
        return {URL: self._url}

    async def check_health(self) -> None:
        """Raise if the gateway's process has ended, so that Serve starts another replica."""
        if self._process.returncode is not None:
            raise RuntimeError(f"the gateway has ended with {self._process.returncode}")

    async def hold(self, name: str) -> None:
        """Stand for a generation on the replica of this name, until cancelled."""
        await asyncio.Event().wait()

    async def __del__(self) -> None:
        """End the gateway, once Serve has seen all generations end; Serve awaits it."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            await self._process.wait()


def _of_own(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without settings of the gateway in front, and without Ray's THREADS."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(SETTINGS) and name != THREADS
    }


def _stop_with_parent() -> None:
    """Have the kernel tell this process to stop when the replica's ends; on Linux alone.

    Ray kills the group of a replica's process that is lost, so this one has a group of its own, to
    end what it has. It stays in the session: Linux divides the processors among sessions first. In
    another one, it had the gateway in front of it on two cores wait 16 ms for a processor in a
    generation of four tokens, 4 ms now.
    """
    if sys.platform == "linux":
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)


class Serve:
    """The deployment, as the gateway in front uses it; only the methods of leases never block."""

    def __init__(self, address: str | None, started: Started):
        self._address = address
        self._started = started
        self._handle: Any = None
        self._joined = False  # whether this process was connected to Ray here

    def start(self, tell: ray_news.Listener) -> None:
        """Start the replicas and wait until they run; `tell` hears of all that come and go."""
        ray_news.listener = tell
        local = self._address is None
        threads = {THREADS: os.environ[THREADS]} if THREADS in os.environ else {}
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._joined = not ray.is_initialized()
        if self._joined:
            self._join()
        serve.start(proxy_location="Disabled")
        token = {"MLX_GATEWAY_TOKENS": f"front:{secrets.token_urlsafe(24)}"}
        environment = {
            **threads,
            **self._started.environment,
            **token,
            **({"RAY_LOCAL": "1"} if local else {}),
        }
        self._handle = serve.run(
            self._deployment().bind(list(self._started.arguments), environment),
            name=APPLICATION,
            route_prefix=None,
        )
        self._handle.broadcast("check_health").results()  # makes the router, which tells

    def _join(self) -> None:
        """Connect to the cluster, or start Ray on this machine, without its reports of usage."""
        of_own: dict[str, Any] = {}
        if self._address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_raylet_start_wait_time_s", f"{START_S:.0f}")
            # Else Ray gives its processes a priority of 15, the last to get a processor.
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.environ.setdefault("RAY_worker_niceness", str(nice))
            # Ray gives itself half a minute to start, with a worker for each CPU; replicas ask for
            # none.
            of_own = {
                "include_dashboard": False,
                "num_cpus": 0,
                "object_store_memory": OBJECT_BYTES,
            }
        address = self._address or "local"  # not one that somebody has started here
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **of_own)

    def _deployment(self) -> Any:
        started = self._started
        count: dict[str, Any] = {"num_replicas": started.replicas}
        if started.most_replicas is not None:
            count = {
                "autoscaling_config": AutoscalingConfig(
                    min_replicas=started.replicas,
                    max_replicas=started.most_replicas,
                    target_ongoing_requests=started.target,
                    upscale_delay_s=started.grow_s,
                    downscale_delay_s=started.shrink_s,
                    look_back_period_s=started.look_s,
                    metrics_interval_s=started.look_s / 4,
                )
            }
        return serve.deployment(
            GatewayReplica,
            name="Gateway",
            max_ongoing_requests=ONGOING,
            health_check_period_s=HEALTH_S,
            graceful_shutdown_timeout_s=STOP_S,
            ray_actor_options={"num_cpus": 0},
            request_router_config=RequestRouterConfig(request_router_class=NamedReplicaRouter),
            **count,
        )

    def lease(self, name: str) -> Callable[[], None]:
        """Begin the call that stands for a generation on a replica; return what ends it."""
        response = self._handle.hold.remote(name)
        end: Callable[[], None] = response.cancel
        return end

    def stop(self) -> None:
        """End the replicas, leave the cluster, and end Ray if it was started here."""
        ray_news.listener = None
        if ray.is_initialized():  # else the call would start it
            with suppress(Exception):
                serve.delete(APPLICATION)
        if self._handle is not None:
            self._handle.shutdown()  # so that it tells Serve no more of its load
        if self._joined:
            ray.shutdown()
