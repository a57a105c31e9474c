"""What the ingress is told of the address it listens on."""

import pytest

from serve import ingress


def test_with_haproxy_no_address_is_this_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ingress.listens_on("127.0.0.1") == ingress.listens_on(None) == "127.0.0.1"
    monkeypatch.setattr(ingress, "RAY_SERVE_ENABLE_HA_PROXY", True)
    assert ingress.listens_on("127.0.0.1") == ingress.listens_on(None) == "0.0.0.0"
