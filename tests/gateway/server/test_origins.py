import pytest

from gateway.server.origins import client_address, host_allowed, listed, origin_allowed, proxies


@pytest.mark.parametrize(
    ("host", "bound", "allowed"),
    [
        ("127.0.0.1:8765", "127.0.0.1", True),
        ("localhost:8765", "127.0.0.1", True),
        ("[::1]:8765", "::1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("evil.example:8765", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.5:8765", "127.0.0.1", False),
        ("192.168.1.5:8765", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("box.lan", "box.lan", True),
        (None, "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("[", "127.0.0.1", False),
    ],
)
def test_host(host, bound, allowed):
    assert host_allowed(host, bound) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:8765", True),
        ("https://127.0.0.1:8765", True),
        ("http://127.0.0.1:9999", False),
        ("http://evil.example", False),
        ("http://127.0.0.1:8765.evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
    ],
)
def test_origin(origin, allowed):
    assert origin_allowed(origin, "127.0.0.1:8765") is allowed


def test_listed_hosts_and_origins_are_ours_too():
    hosts, origins = listed("Chat.Example, other.example ,"), listed("https://App.example")
    assert host_allowed("chat.example:8765", "127.0.0.1", hosts)
    assert not host_allowed("app.example", "127.0.0.1", hosts)
    assert origin_allowed("https://app.example", "127.0.0.1:8765", origins)
    assert not origin_allowed("http://app.example", "127.0.0.1:8765", origins)
    assert listed(None) == frozenset()


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:5555"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7:5555, 10.0.0.2:80"], "203.0.113.7"),
        ("10.0.0.1", ["[2001:db8::7]:5555"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["[203.0.113.7"], "10.0.0.1"),
        ("10.0.0.1", [":80"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:80:80"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7:http"], "10.0.0.1"),
        ("2001:db8::1", ["203.0.113.7"], "203.0.113.7"),
        ("", ["203.0.113.7"], "203.0.113.7"),
        ("", [], ""),
    ],
)
def test_only_what_trusted_proxies_have_added_is_believed(peer, forwarded, address):
    trusted = proxies("10.0.0.0/8, 2001:db8::1, unix")
    assert client_address(peer, forwarded, trusted) == address


def test_a_socket_files_word_is_not_believed_unless_it_is_trusted():
    assert client_address("", ["203.0.113.7"], proxies("10.0.0.0/8")) == ""
    with pytest.raises(ValueError, match="example"):
        proxies("proxy.example")
