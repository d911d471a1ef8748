"""How many sockets the process may have, and how its limit is raised."""

import resource

from gateway.server.descriptors import FOR_REQUESTS, RESERVED, Sockets, raise_limit


def test_connections_leave_descriptors_for_requests_and_for_the_server_itself():
    plenty = Sockets.within(4096, 1 << 20)
    assert plenty.connections == 4096
    assert Sockets.within(4096, 2048) == Sockets(2048 - RESERVED, 2048 - RESERVED - FOR_REQUESTS)
    for files in (1, 20, 100, RESERVED, 256, 1024):
        some = Sockets.within(4096, files)
        assert 1 <= some.connections <= some.all <= files


def test_the_limit_is_raised_as_far_as_is_needed_and_allowed():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = before[0] - FOR_REQUESTS - RESERVED - 100
    try:
        for connections, files in ((1, before[0] - 50), (least, before[0] - 50), (1 << 40, None)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 50, before[1]))
            raise_limit(connections)
            now = resource.getrlimit(resource.RLIMIT_NOFILE)
            assert now == (files or before[1], before[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 200, before[1]))
        raise_limit(least)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[0] - 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
