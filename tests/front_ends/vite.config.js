import { svelte } from "@sveltejs/vite-plugin-svelte";
import react from "@vitejs/plugin-react";
import vue from "@vitejs/plugin-vue";
import { globSync } from "node:fs";

/** One build for all pages; an app of its own has one of these plugins and an index.html at its root. */
export default {
  plugins: [react(), vue(), svelte()],
  build: { rollupOptions: { input: globSync("*/index.html", { exclude: ["dist/*", "pasted/*", "plain/*"] }) } },
  worker: { format: "es" },
  cacheDir: process.env.VITE_CACHE, // the tests may run two servers at once
};
