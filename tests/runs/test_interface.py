import socket

import pytest

from handgrad.runs import interface
from handgrad.runs.interface import IFNAME, interface_towards, tell_gloo

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_PACKET"), reason="Linux alone tells an interface's address")


def test_this_host_is_reached_by_its_loopback():
    name = interface_towards("127.0.0.1")
    assert name is not None
    assert name in {found for _, found in socket.if_nameindex()}
    assert interface_towards("localhost") == name


def test_nothing_is_found_for_a_name_that_leads_nowhere():
    assert interface_towards("nowhere.invalid") is None


def test_gloo_is_told_what_was_found_unless_the_user_has_told_it(monkeypatch):
    monkeypatch.setenv(IFNAME, "")  # so that it is put back to what it was
    monkeypatch.delenv(IFNAME)
    monkeypatch.setattr(interface, "interface_towards", {"a": "eth1", "nowhere": None}.get)
    tell_gloo("nowhere")
    assert IFNAME not in interface.os.environ
    tell_gloo("a")
    assert interface.os.environ[IFNAME] == "eth1"
    monkeypatch.setenv(IFNAME, "ib0")
    tell_gloo("a")
    assert interface.os.environ[IFNAME] == "ib0"
