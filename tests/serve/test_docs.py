"""Whether the page at /docs says what works."""

import base64
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from medsynth.skin import semantic_map
from medsynth.skin.semantic_map import Box
from serve import docs
from tests import skin_model
from tests.serve.local import BASE, LocalFocus, LocalSkin, client, encoded


def test_every_documented_command_works(focus: LocalFocus, skin: LocalSkin, tile: bytes, tmp_path: Path) -> None:
    (tmp_path / "tile.png").write_bytes(tile)
    drawn = semantic_map.draw(
        (32, 32), (172, 124, 100), Box(4, 4, 20, 20), semantic_map.colours(skin_model.NAMES)["NEV"]
    )
    (tmp_path / "map.png").write_bytes(encoded(drawn))
    with client(focus, skin=skin) as http:
        openapi = http.get("/openapi.json").json()
        page = http.get("/docs").text
        known = {"condition": "BCC", "version": http.get("/v2/models/focus").json()["versions"][0]}
        found = list(docs.commands(openapi, BASE, known))
        routes = {"/v1/focus/scores", "/v1/focus/heatmaps", "/v1/focus/slides"}
        assert routes | {"/v1/skin/images", "/v1/skin/images/from-map"} <= {path for _, path, _, _ in found}
        for method, path, _, command in found:
            assert docs._text(command) in page
            answer = as_curl(http, command, tmp_path)
            wanted = 404 if path.startswith("/v1/focus/slides") else 200  # this service was given no place for slides
            assert answer.status_code == wanted, f"{method} {path}: {answer.text}"


@pytest.mark.parametrize(
    ("asked_at", "host", "base"),
    [
        ("http://127.0.0.1:8000", "serve.example:9000", "http://serve.example:9000"),
        ("https://127.0.0.1:8000", "a_b.example", "https://a_b.example"),
        ("http://127.0.0.1:8000", "[::1]:8000", "http://[::1]:8000"),
        *(
            ("http://127.0.0.1:8000", host, "http://127.0.0.1:8000")
            for host in ("<b>x", "x';reboot;'", "x$(reboot)", "x y", "a@b", "a/b", "a:b", "a{condition}", "a\n", "")
        ),
    ],
)
def test_documented_commands_name_the_address_asked_at(
    focus: LocalFocus, skin: LocalSkin, asked_at: str, host: str, base: str
) -> None:
    app = client(focus, skin=skin).app
    for prefix in ("", "/models"):
        http = TestClient(app, asked_at, root_path=prefix)
        page = http.get("/docs", headers={"Host": host}).text
        addresses = re.findall(r"&#x27;(\w+://.*?)/(?:v1|v2|metrics|healthz|readyz)", page)
        assert len(addresses) > 10
        assert set(addresses) == {base + prefix}


def as_curl(http: TestClient, command: str, folder: Path) -> Any:
    """Do what a curl command does."""
    file = re.search(r"\$\(base64 -w0 (.*?)\)", command)
    if file:
        command = command.replace(file[0], base64.b64encode((folder / file[1]).read_bytes()).decode())
    words = shlex.split(command)
    assert words.pop(0) == "curl"
    headers, data, address = {}, None, ""
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = words.pop(0).encode()
        elif word == "--data-binary":
            data = (folder / words.pop(0).removeprefix("@")).read_bytes()
        else:
            assert word.startswith(BASE)
            address = word.removeprefix(BASE)
    return http.get(address) if data is None else http.post(address, content=data, headers=headers)
