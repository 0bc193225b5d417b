"""The network interface by which this host reaches another one; gloo has to be told it.

By itself gloo takes what the host's own name leads to, which is often 127.0.0.1, where no other host finds it.
"""

import os
import socket
import struct
from contextlib import suppress

IFNAME = "GLOO_SOCKET_IFNAME"  # what gloo reads
SIOCGIFADDR = 0x8915  # Linux asks so for an interface's address


def tell_gloo(host: str) -> None:
    """Sets gloo's variable to the interface by which ``host`` is reached, unless it is set or none is found."""
    if IFNAME not in os.environ and (name := interface_towards(host)):
        os.environ[IFNAME] = name


def interface_towards(host: str) -> str | None:
    """Returns the name of the interface that has the address from which this host would send to another one.

    None where there is none, or the system does not tell: of IPv6, and outside Linux.
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        own = own_address(host)
        return next((name for _, name in socket.if_nameindex() if own and address(probe, name) == own), None)
    return None


def own_address(host: str) -> str | None:
    """Returns the IPv4 address from which this host would send to another one; None where no way leads there."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing: the system looks up the way alone
        return probe.getsockname()[0]
    return None


def address(probe: socket.socket, name: str) -> str | None:
    """Returns an interface's IPv4 address; None where it has none."""
    try:
        from fcntl import ioctl

        answer = ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
    except (ImportError, OSError):
        return None
    return socket.inet_ntoa(answer[20:24])
