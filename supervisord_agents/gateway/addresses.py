"""Which addresses are of the public Internet: everything else is somebody's own, and refused.

Ranges: the IANA IPv4 and IPv6 special-purpose address registries (RFC 6890), as of 2025. The `ipaddress` module has them too, but
of the day its Python was made; an address must be public to both.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_network

SPECIAL = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
"""Those called global in the registries are here too: no host that a worker has business with is in them."""
IPV6_UNICAST = ip_network("2000::/3")
"""All that IANA has given out for unicast (RFC 4291, 2.4)."""
NAT64 = ip_network("64:ff9b::/96")
"""Holds an IPv4 address, which a network without IPv4 translates to (RFC 6052)."""
ISATAP = (0x00005EFE, 0x02005EFE)
"""The third quarter of an address that ends in an IPv4 address to tunnel to (RFC 5214, 6.1)."""


def is_global(address: str) -> bool:
    """True if the address is one of the public Internet, in its usual form, without a zone (RFC 4007).

    An IPv4 address inside an IPv6 one is judged by itself, where networks of today translate it; tunnels (6to4, Teredo, ISATAP)
    are refused, whatever they lead to.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return _is_global_v4(ip) if isinstance(ip, IPv4Address) else _is_global_v6(ip)


def _is_global_v4(ip: IPv4Address) -> bool:
    return ip.is_global and not any(ip in network for network in SPECIAL)


def _is_global_v6(ip: IPv6Address) -> bool:
    if ip.scope_id is not None:
        return False
    if ip.ipv4_mapped is not None:
        return _is_global_v4(ip.ipv4_mapped)
    if ip in NAT64:
        return _is_global_v4(IPv4Address(int(ip) & 0xFFFFFFFF))
    if (int(ip) >> 32) & 0xFFFFFFFF in ISATAP:
        return False
    return ip in IPV6_UNICAST and ip.is_global and not any(ip in network for network in SPECIAL)
