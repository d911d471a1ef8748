import { join } from "node:path";

/** The packages are in the folder above, which the apps share; an app of its own needs none of this. */
export default { turbopack: { root: join(import.meta.dirname, "..") } };
