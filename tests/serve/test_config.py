"""serve/config.yaml, held against what Serve and the application know."""

import importlib.util
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from medsynth.errors import SpecError, UserError
from serve import config
from serve.app import app
from serve.settings import AppSettings
from tests.conftest import REPO


def test_the_shipped_file_is_right_and_guards_itself() -> None:
    found = config.check(str(config.DEFAULT))
    assert found.http_options.host == "127.0.0.1"
    (application,) = found.applications
    assert {one.name for one in application.deployments} == set(config.DEPLOYMENTS)
    limits = AppSettings().limits
    by_name = {one.name: one for one in application.deployments}
    for name in ("Ingress", "FocusScorer", "SkinGenerator"):
        assert by_name[name].graceful_shutdown_timeout_s > limits.seconds, "what was taken is finished"
    assert by_name["Ingress"].max_ongoing_requests > 4 * limits.in_flight


def scaling(found: Any) -> Any:
    return found["applications"][0]["deployments"][1]["autoscaling_config"]


def test_reasons_stand_beside_the_values() -> None:
    lines = config.DEFAULT.read_text().splitlines()
    scaling = [line for line in lines if any(key in line for key in ("_replicas:", "_delay_s:", "target_ongoing"))]
    assert sum("#" in line for line in scaling) >= 12


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(http_option={}), "http_options"),
        (lambda c: c["http_options"].update(hots="x"), "http_options.hots"),
        (lambda c: c["applications"][0].update(argz={}), "args"),
        (lambda c: c["applications"][0].update(import_path="serve.app:ap"), "serve.app:app"),
        (lambda c: c["applications"][0]["args"].update(focus_weight="x"), "focus_weights"),
        (lambda c: c["applications"][0]["args"].update(limits={"pixel": 1}), "pixels"),
        (lambda c: c["applications"][0]["deployments"][1].update(max_queue_requests=1), "max_queued_requests"),
        (lambda c: c["applications"][0]["deployments"][1].update(name="Focus"), "FocusScorer"),
        (lambda c: scaling(c).update(max_replica=1), "max_replicas"),
        (lambda c: scaling(c).update(min_replicas=-1), "min_replicas"),
        (lambda c: c["applications"][0]["deployments"][1]["ray_actor_options"].update(num_cpu=1), "num_cpus"),
    ],
)
def test_a_misspelt_key_or_value_is_named(tmp_path: Path, change: Any, named: str) -> None:
    found = yaml.safe_load(config.DEFAULT.read_text())
    change(found)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(found))
    with pytest.raises(SpecError, match=named) as caught:
        config.check(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "tokens", "args", "named"),
    [
        ("0.0.0.0", "", {}, "MEDSYNTH_API_TOKENS"),
        ("127.0.0.1", "short", {}, "at least 16"),
        ("127.0.0.1", "", {"focus_wieghts": "x"}, "focus_weights"),
    ],
)
def test_it_refuses_to_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, tokens: str, args: Any, named: str
) -> None:
    monkeypatch.setattr("serve.app.DEFAULT_HTTP_HOST", host)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("MEDSYNTH_API_TOKENS", tokens)
    with pytest.raises(SystemExit) as caught:
        app(args)
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith("error: ")
    assert named in line


def test_a_port_that_is_taken_is_told_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr("serve.app.DEFAULT_HTTP_PORT", port)
        with pytest.raises(SystemExit):
            app({})
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: 127.0.0.1:{port}: Address already in use; stop what listens there")
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
        app({})  # what it would start may replace what is there
    monkeypatch.setenv("RAY_ADDRESS", "local")
    app({})


@pytest.mark.parametrize(("key", "job"), [("focus_weights", "train_focus.py"), ("skin_weights", "train_gan.py")])
def test_weights_that_are_not_there_are_told_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str, job: str
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("serve.app.DEFAULT_HTTP_PORT", 0)
    missing = {key: str(tmp_path / "none.safetensors")}
    app(missing)  # a cluster elsewhere may have them
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(SystemExit):
        app(missing)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {key}: ")
    assert line.endswith(f"none.safetensors: no such file; name the weights that jobs/{job} made")


def test_inside_a_cluster_the_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with pytest.raises(UserError, match="focus_weights"):
        app({"focus_wieghts": "x"})


def test_the_serve_command_is_rays_and_the_package_ours() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="serve")
    assert command.value.startswith("ray.serve.")
    found = importlib.util.find_spec("serve")
    assert found is not None
    assert found.origin == str(REPO / "serve" / "__init__.py")
    outside = [one for one in metadata.packages_distributions() if one == "serve"]
    assert not outside, "no installed package is called serve"
