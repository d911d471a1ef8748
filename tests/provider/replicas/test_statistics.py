"""The metrics of a fleet, as Prometheus reads them."""

from gateway.server.metrics import Metrics, exposition
from provider.replicas.statistics import FleetStatistics


def test_each_replica_has_its_own_line():
    snapshot = FleetStatistics(
        replicas=2,
        replicas_ready=1,
        replica_ready={"a:1": 1, "b:1": 0},
        replica_answers={"a:1": 7, "b:1": 0},
        replica_connections_lost={"a:1": 0, "b:1": 3},
        generations_placed=9,
        conversations_known=4.5,
        generations_passed_on=0,
        generations_moved=2,
        generations_lost=1,
    )
    now = dict.fromkeys(("connections", "generations", "tickets", "lost_generations"), 0)
    lines = exposition(Metrics(), now, snapshot).decode().splitlines()
    for line in (
        "mlx_gateway_engine_replicas_ready 1.0",
        'mlx_gateway_engine_replica_answers{replica="a:1"} 7.0',
        'mlx_gateway_engine_replica_connections_lost_total{replica="b:1"} 3.0',
        "mlx_gateway_engine_generations_moved_total 2.0",
    ):
        assert line in lines
