/**
 * Makes the npm package: `node pack.mjs TOOLS DIST`, where TOOLS has the node_modules of package.json. The
 * tarball goes to DIST.
 */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/** The most bytes of the client, minified and gzipped. */
const MOST = 5000;
const HERE = fileURLToPath(new URL(".", import.meta.url));
const [tools, dist] = process.argv.slice(2).map((path) => resolve(path));
const stage = mkdtempSync(join(tools, "package-")); // where the compiler finds the libraries
const { buildSync } = createRequire(join(tools, "package.json"))("esbuild");

process.on("exit", () => rmSync(stage, { recursive: true }));
mkdirSync(dist, { recursive: true });
for (const name of ["../client.js", "../tool_loop.js", "../adapters", "README.md", "../../LICENSE"]) {
  cpSync(join(HERE, name), join(stage, name.split("/").at(-1)), { recursive: true });
}
const { devDependencies, ...manifest } = JSON.parse(readFileSync(join(HERE, "package.json"), "utf8"));
writeFileSync(join(stage, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
declareTypes();
const size = minify();
console.log(`client.js is ${size} bytes, minified and gzipped; at most ${MOST} are allowed`);
if (size > MOST) process.exitCode = 1;
run("npm", ["pack", "--silent", "--pack-destination", dist]);

/** Write the d.ts files, with maps to the sources beside them. */
function declareTypes() {
  const options = {
    allowJs: true,
    checkJs: true,
    declaration: true,
    declarationMap: true,
    emitDeclarationOnly: true,
    lib: ["ES2024", "DOM", "DOM.Iterable", "DOM.AsyncIterable"],
    module: "ES2022",
    moduleResolution: "bundler",
    skipLibCheck: true,
    strict: true,
    target: "ES2022",
    types: [],
  };
  const config = join(stage, "tsconfig.json");
  writeFileSync(config, JSON.stringify({ compilerOptions: options, include: ["*.js", "adapters/*.js"] }));
  run(process.execPath, [join(tools, "node_modules/typescript/bin/tsc"), "--project", config]);
  rmSync(config);
}

/** Write client.min.js with its map; return its size when gzipped. */
function minify() {
  const outfile = join(stage, "client.min.js");
  buildSync({
    absWorkingDir: stage,
    entryPoints: ["client.js"],
    format: "esm",
    minify: true,
    outfile,
    sourcemap: "linked",
    sourcesContent: false,
    target: "es2022",
  });
  const code = readFileSync(outfile, "utf8").replace(/\n\/\/# sourceMappingURL=.*\n$/, "");
  return gzipSync(code, { level: 9 }).length;
}

/** Run a program in the package's folder. */
function run(program, given) {
  execFileSync(program, given, { cwd: stage, stdio: "inherit" });
}
