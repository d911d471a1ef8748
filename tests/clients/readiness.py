"""Whether a gateway takes new work, for the programs that other people's clients run in."""

from urllib.error import HTTPError
from urllib.request import urlopen


def is_ready(url):
    """Return whether the gateway with this address of its API takes new work."""
    try:
        with urlopen(url.replace("/v1", "/readyz")) as answered:
            return answered.status == 200
    except HTTPError as error:
        error.close()
        return False
