"""mlx as the process has it: streams that live as long as the thread that made them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from provider.runtime.mlx import clear_streams_at_thread_end, mx


def _compute() -> float:
    clear_streams_at_thread_end()
    return float(mx.arange(4, dtype=mx.float32).sum().item())


def test_asking_again_leaves_the_streams_of_a_thread_alone() -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        assert [thread.submit(_compute).result() for _ in range(3)] == [6.0, 6.0, 6.0]


def test_a_thread_after_one_that_ended_computes_too() -> None:
    for _ in range(3):
        with ThreadPoolExecutor(max_workers=1) as thread:
            assert thread.submit(_compute).result() == 6.0
