"""mlx streams live as long as the thread that made them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from provider.runtime.mlx import clear_streams_at_thread_end, mx


def _compute() -> float:
    clear_streams_at_thread_end()
    return float(mx.arange(4, dtype=mx.float32).sum().item())


def test_a_second_guard_does_not_destroy_a_threads_streams() -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        assert [thread.submit(_compute).result() for _ in range(3)] == [6.0, 6.0, 6.0]


def test_a_thread_can_compute_after_another_has_ended() -> None:
    for _ in range(3):
        with ThreadPoolExecutor(max_workers=1) as thread:
            assert thread.submit(_compute).result() == 6.0
