"""Jobs wait in an order that is fair between clients."""

from provider.models.prompt_queue import PromptQueue


def served(queue, seconds, steps=1000):
    """Take the jobs in turn, each with as many steps of a second as `seconds` says of it."""
    order, taken = [], {}
    while (job := queue.pop()) is not None and len(order) < steps:
        order.append(job)
        taken[job] = taken.get(job, 0) + 1
        if taken[job] < seconds[job]:
            queue.add(job, job[0], taken[job])
        queue.took(1)
    return "".join(job[1] for job in order)


def queue_of(*jobs):
    queue = PromptQueue()
    for job in jobs:
        queue.add(job, job[0])
    return queue


def test_jobs_of_one_client_come_in_their_order():
    queue = queue_of("aA", "aB", "aC")
    assert served(queue, dict.fromkeys(("aA", "aB", "aC"), 1)) == "ABC"
    assert queue.pop() is None


def test_a_client_with_many_jobs_gets_no_more_than_one_with_one():
    queue = queue_of("aA", "aB", "aC", "bZ")
    order = served(queue, {"aA": 4, "aB": 4, "aC": 4, "bZ": 3})
    assert order[:6].count("Z") == 3


def test_a_short_job_passes_the_long_ones_of_its_client():
    queue = queue_of("aA", "aB")
    long = {"aA": 9, "aB": 9}
    for _ in range(4):
        job = queue.pop()
        queue.add(job, "a", long[job])
        queue.took(long[job])
    queue.add("aS", "a")
    assert queue.pop() == "aS"


def test_a_client_that_pauses_is_even_with_the_others_when_it_comes_back():
    queue = queue_of("aA")
    for seconds in range(1, 100):
        queue.add(queue.pop(), "a", seconds)
        queue.took(1)
    queue.add("bZ", "b")
    order = served(queue, {"aA": 5, "bZ": 5}, steps=6)
    assert order.count("Z") == 3


def test_a_discarded_job_is_never_taken_and_its_client_is_forgotten():
    queue = queue_of("aA", "aB", "bZ")
    queue.discard("aA")
    queue.discard("xX")
    queue.discard("bZ")
    assert served(queue, {"aB": 1}) == "B"
    queue.add("bY", "b")
    assert queue.clear() == ["bY"]
    assert queue.pop() is None
