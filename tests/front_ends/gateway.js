/** The gateway's address; the tests name another one in the page's. */
export const gateway = new URLSearchParams(globalThis.location?.search).get("gateway") ?? "http://127.0.0.1:8765";
