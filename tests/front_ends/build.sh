#!/bin/sh
# Builds the apps, each by its own tool: sh build.sh CLIENT.tgz FOLDER, where FOLDER has their packages.
set -eu
here=$(dirname "$0")
client=$2/node_modules/mlx-gateway-client
rm -rf "$client" "$2/next"
mkdir -p "$client"
tar -xzf "$1" --strip-components 1 -C "$client"
cp -R "$here"/*.js "$here"/*.jsx "$here"/*/ "$2"
cd "$2"
node node_modules/vite/bin/vite.js build --logLevel warn &
vite=$!
NEXT_TELEMETRY_DISABLED=1 node node_modules/next/dist/bin/next build next >next.log 2>&1 || { cat next.log; exit 1; }
wait $vite
