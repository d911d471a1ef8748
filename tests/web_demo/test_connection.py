"""client.js where connections are lost, and signals that outlive runs, in Node."""

from provider.scripted import Say
from tests.support.servers import stream_url
from tests.web_demo.conftest import in_node, scripted_gateway, wants_node

pytestmark = wants_node


async def test_a_run_that_was_cancelled_before_it_could_be_sent_never_is():
    async with scripted_gateway(Say("a")) as gateway:
        ends = await in_node(
            "client.js",
            """
            const sockets = [];
            class Noted extends WebSocket {
                constructor(...given) {
                    super(...given);
                    sockets.push(this);
                }
            }
            const client = m.connect(url, {WebSocket: Noted});
            await client.ready;
            sockets[0].close(4000); // which the client has not heard of yet
            const run = client.generate({prompt: "first"});
            const later = client.generate({prompt: "second"});
            run.cancel();
            const ends = await Promise.all([run.result, later.result]);
            client.close();
            console.log(JSON.stringify(ends.map(({finishReason}) => finishReason)));
            """,
            stream_url(gateway),
        )
    assert ends == ["cancelled", "stop"]
    assert [request.prompt for request in gateway.provider.requests] == ["second"]
