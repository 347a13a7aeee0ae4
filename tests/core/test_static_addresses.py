"""Static addresses of a clone's origin become automatic; what else stands in the files stays."""

from __future__ import annotations

from containers.core.storage.static_addresses import without_addresses, without_static

INTERFACES = """# mine
auto lo eth0
iface lo inet loopback
iface lo inet static
    address 127.0.0.2

iface eth0 inet static
    address 10.0.0.5
    netmask 255.255.255.0
    gateway 10.0.0.1
    dns-nameservers 10.0.0.1
iface eth0 inet6 static
\taddress fd00::5/64
auto eth1
iface eth1 inet manual
    address-is-none yes
source /etc/network/interfaces.d/*
"""


def test_ifupdown():
    told = without_static(INTERFACES)
    assert "iface eth0 inet dhcp" in told
    assert "iface eth0 inet6 auto" in told
    assert "10.0.0.5" not in told
    assert "gateway" not in told
    for kept in ("# mine", "address 127.0.0.2", "dns-nameservers 10.0.0.1", "address-is-none yes", "source /etc"):
        assert kept in told
    assert without_static(told) == told


def test_networkd():
    match = "[Match]\nName=eth0\n"
    text = f"{match}\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nDNS=1.1.1.1\n\n[Route]\nGateway=10.0.0.2\n"
    told = without_addresses(text)
    assert told == "[Match]\nName=eth0\n\n[Network]\nDHCP=yes\nDNS=1.1.1.1\n\n"
    assert without_addresses(told) == told
    other = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n"
    assert without_addresses(other) == other
    section = (
        "[Match]\nName=eth0\n[Network]\nDHCP=no\n[Address]\nAddress=10.0.0.5/24\nLabel=x\n[Route]\nDestination=::/0\n"
    )
    told = without_addresses(section)
    assert "10.0.0.5" not in told
    assert "DHCP=yes" in told
    assert "Destination=::/0" in told
