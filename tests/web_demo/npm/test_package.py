"""The npm package: what its tarball holds, and how it is found by programs and compilers."""

import json
import tarfile

import pytest

from tests.web_demo.npm.conftest import NODE, ROOT, TOOLS, run, run_in_node

pytestmark = [
    pytest.mark.slow("the page's tests run the same client.js, and those of the adapters the rest"),
    pytest.mark.timeout(300),
]


def contents(tarball):
    with tarfile.open(tarball) as archive:
        files = [member for member in archive if member.isfile()]
        return {one.name.removeprefix("package/"): archive.extractfile(one).read() for one in files}


def test_the_tarball_holds_the_client_its_adapters_their_types_and_the_licence(tarball):
    held = contents(tarball)
    adapters = {path.stem for path in (ROOT / "web_demo/adapters").glob("*.js")}
    typed = {"client", "tool_loop", *(f"adapters/{name}" for name in adapters)}
    assert set(held) == {
        *(f"{name}{end}" for name in typed for end in (".js", ".d.ts", ".d.ts.map")),
        *("client.min.js", "client.min.js.map", "LICENSE", "README.md", "package.json"),
    }
    for name in typed:
        assert held[f"{name}.js"] == (ROOT / "web_demo" / f"{name}.js").read_bytes()
        sources = json.loads(held[f"{name}.d.ts.map"])["sources"]
        assert sources == [f"{name.removeprefix('adapters/')}.js"]
    assert held["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert len(held["client.min.js"]) < len(held["client.js"]) / 3


def test_each_adapter_is_exported_and_its_library_is_an_optional_peer(tarball):
    manifest = json.loads(contents(tarball)["package.json"])
    sources = (ROOT / "web_demo/adapters").glob("*.js")
    adapters = {path.stem for path in sources if path.stem != "shared"}
    assert set(manifest["exports"]) == {
        *(".", "./tools", "./package.json"),
        *(f"./{name}" for name in adapters),
    }
    assert set(manifest["typesVersions"]["*"]) == {"tools", *adapters}
    optional = manifest["peerDependenciesMeta"].values()
    assert [*optional] == [{"optional": True}] * len(manifest["peerDependencies"])
    assert "dependencies" not in manifest
    assert "devDependencies" not in manifest


def test_publint_and_are_the_types_wrong_find_nothing(tarball):
    linted = run(TOOLS / "node_modules/.bin/publint", "--strict", tarball)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    # It is ESM alone, as all that it is for.
    checked = run(
        TOOLS / "node_modules/.bin/attw", tarball, "--ignore-rules", "cjs-resolves-to-esm"
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_minified_client_is_the_same_program(installed):
    said = await run_in_node(
        """
        const whole = await import("mlx-gateway-client");
        const small = await import("./node_modules/mlx-gateway-client/client.min.js");
        console.log(JSON.stringify([Object.keys(whole), Object.keys(small)]));
        """,
        installed,
    )
    assert "connect" in said[0]
    assert said[0] == said[1]


@pytest.mark.parametrize("compiler", ["typescript", "typescript-7"])
def test_a_program_compiles_under_the_strictest_options(installed, compiler):
    here = ROOT / "tests/web_demo"
    sources = {
        "client.ts": here / "typecheck/consumer.ts",
        "adapters.tsx": here / "npm/consumer.tsx",
    }
    for name, path in sources.items():
        text = path.read_text().replace("../../../web_demo/client.js", "mlx-gateway-client")
        text = text.replace("../../../web_demo/tool_loop.js", "mlx-gateway-client/tools")
        (installed / name).write_text(text)
    config = json.loads((here / "typecheck/tsconfig.json").read_text())
    del config["compilerOptions"]["allowJs"]
    config["compilerOptions"] |= {"jsx": "react-jsx", "skipLibCheck": True}
    (installed / "tsconfig.json").write_text(json.dumps({**config, "files": [*sources]}))
    tsc = TOOLS / "node_modules" / compiler / "bin/tsc"
    done = run(NODE, tsc, "--project", installed / "tsconfig.json")
    assert done.returncode == 0, done.stdout
