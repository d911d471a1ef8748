import { connect } from "mlx-gateway-client";

let client;
let run;

onmessage = async ({ data }) => {
  if (data.gateway) {
    client = connect(data.gateway, { onstate: (now, code, reason) => postMessage({ state: reason || now }) });
  } else if (data.stop) {
    run?.cancel();
  } else {
    run = client.generate({ messages: [{ role: "user", content: data.ask }] });
    for await (const _ of run) postMessage({ text: run.text });
  }
};
