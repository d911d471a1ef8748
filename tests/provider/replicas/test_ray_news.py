"""Who hears of replicas."""

from provider.replicas import ray_news


def test_the_listener_hears_and_nobody_else_has_to(monkeypatch):
    heard = []
    ray_news.tell({"a": "http://a:1/"})
    monkeypatch.setattr(ray_news, "listener", heard.append)
    ray_news.tell({"b": "http://b:1/"})
    assert heard == [{"b": "http://b:1/"}]
