import pytest

from gateway.server.origins import (
    client_address,
    counted_as,
    flags_for,
    host_allowed,
    listed,
    origins,
    proxies,
)

OWN = "127.0.0.1:8765"


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
    assert origins(None).allow(origin, OWN) is allowed


def test_listed_hosts_are_ours_too():
    hosts = listed("Chat.Example, other.example ,")
    assert host_allowed("chat.example:8765", "127.0.0.1", hosts)
    assert not host_allowed("app.example", "127.0.0.1", hosts)
    assert listed(None) == frozenset()


@pytest.mark.parametrize(
    ("setting", "origin"),
    [
        ("https://app.example", "https://app.example"),
        (" HTTPS://App.Example/ , http://b.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("https://app.example", "https://app.example:443"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://localhost:*", "http://localhost:5174"),
        ("http://localhost:*", "http://localhost"),
        ("http://127.0.0.1:*", "http://127.0.0.1:3000"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("tauri://localhost", "tauri://localhost"),
        ("file://", "file://"),
    ],
)
def test_a_listed_origin_is_known_in_every_way_to_write_it(setting, origin):
    assert origins(setting).allow(origin, OWN)


@pytest.mark.parametrize(
    ("setting", "origin"),
    [
        ("https://app.example", "http://app.example"),
        ("https://app.example", "https://app.example.evil.example"),
        ("https://app.example", "https://evil.example/https://app.example"),
        ("https://app.example:444", "https://app.example"),
        ("http://localhost:*", "https://localhost:5173"),
        ("http://localhost:*", "http://localhost.evil.example:5173"),
        ("http://localhost:*", "http://127.0.0.1:5173"),
        ("http://localhost:*", "null"),
        ("http://localhost", "http://localhost:5173"),
        ("file://", "null"),
        ("file://", ""),
    ],
)
def test_what_is_not_listed_is_refused(setting, origin):
    assert not origins(setting).allow(origin, OWN)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("*", "any site.*--dev"),
        ("null", "any site"),
        ("localhost:5173", "no scheme; is it `http://localhost:5173`"),
        ("app.example", "no scheme"),
        ("https://app.example/chat", "not an origin"),
        ("https://*.example", "not an origin"),
        ("https://you@app.example", "not an origin"),
        ("http://", "not an origin"),
        ("https://app.example:*", "only an origin on loopback"),
        ("http://localhost:*:*", "not an origin"),
        ("https://xn--\u00e4.example", "not valid"),
        ("http://a.example, *", "`\\*` in `origins`"),
    ],
)
def test_a_setting_that_can_match_nothing_is_refused_with_the_reason(setting, reason):
    with pytest.raises(ValueError, match=reason):
        origins(setting)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5173", True),
        ("https://localhost:5173", True),
        ("http://app.localhost:3000", True),
        ("http://127.0.0.1:1", True),
        ("http://127.9.9.9:1", True),
        ("http://[::1]:5173", True),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://notlocalhost", False),
        ("http://0.0.0.0:5173", False),
        ("http://192.168.1.5", False),
        ("https://evil.example", False),
        ("chrome-extension://localhost", False),
        ("null", False),
        ("file://", False),
    ],
)
def test_in_development_every_origin_of_this_machine_may_connect(origin, allowed):
    assert origins(None, loopback=True).allow(origin, OWN) is allowed
    assert not origins(None).allow(origin, OWN)


@pytest.mark.parametrize(
    ("origin", "before", "local", "flags"),
    [
        ("http://localhost:5173", None, True, "`--dev` or `--origins http://localhost:5173`"),
        ("http://localhost:5173", None, False, "`--origins http://localhost:5173`"),
        (
            "https://b.example",
            "https://a.example",
            True,
            "`--origins https://a.example,https://b.example`",
        ),
        ("null", None, True, None),
        ("http://a.example`", None, True, None),
    ],
)
def test_the_flags_for_an_origin_keep_what_was_listed(origin, before, local, flags):
    assert flags_for(origin, before, local=local) == flags


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


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
        ("name:of:nothing", "name:of:nothing"),
    ],
)
def test_an_ipv6_address_is_counted_as_its_network(address, counted):
    assert counted_as(address) == counted


def test_a_mapped_address_is_the_ipv4_address_that_it_stands_for():
    trusted = proxies("10.0.0.0/8")
    assert client_address("::ffff:203.0.113.7", [], trusted) == "203.0.113.7"
    assert client_address("::FFFF:10.0.0.1", ["::ffff:203.0.113.8"], trusted) == "203.0.113.8"
