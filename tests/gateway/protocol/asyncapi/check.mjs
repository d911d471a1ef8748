// Parses the AsyncAPI document on standard input; prints what the parser has to say, as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/`);
const { Parser } = require("@asyncapi/parser");
const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const messages = document ? document.messages().all().map((message) => message.name()) : [];
console.log(JSON.stringify({ diagnostics, messages }));
