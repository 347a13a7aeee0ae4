"""The network of an instance as its callers see it: networks, registered containers, attached NICs.

Order of a start: the packet filter's elements are in the kernel, then the link comes up. What is called twice does
nothing the second time. Root; the first call loads pyroute2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..errors import InUse
from ..failpoints import failpoint
from ..host import Host
from ..hoststore import claims
from ..kernel import locking
from ..model import subnets
from ..model.network_config import NetworkConfig
from ..model.nics import host_network
from ..model.spec import Spec
from ..sentences import say
from . import bridge, dnsmasq, nft, plugging, rates, veth

_NO_PARENTS: Final[plugging.Parents] = {}


@contextlib.contextmanager
def _lock(host: Host) -> Iterator[None]:
    host.locks_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locking.held(host.locks_dir / "network"):
        yield


def _check(configs: Iterable[NetworkConfig]) -> None:
    """Raise SpecError where a network is none: its values become names of links and lines of configuration."""
    for config in configs:
        config.check()


def ensure_all(host: Host, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> list[str]:
    """Make the host have these networks and know these containers, and nothing else of this instance.

    Returns in words what was changed of the host's own settings. Raises InUse where a subnet belongs to another
    instance, SetupFailed where the kernel or dnsmasq refuses, SpecError where a network is none.
    """
    _check(configs)
    with _lock(host):
        claims.claim_subnets(host, [subnet for config in configs for subnet in config.subnets()])
        nft.ensure_whole(host, configs, specs)
        changed = [text for config in configs for text in bridge.ensure(host, config)]
        dnsmasq.ensure(host, configs, specs)
    return changed


def ensure(host: Host, config: NetworkConfig, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> list[str]:
    """Make one network, beside those that are there; configs: all of the instance, this one too.

    Returns what was changed of the host's own settings. Raises InUse where the subnet is another's or routed elsewhere.
    """
    _check((config, *configs))
    with _lock(host):
        refuse_routed(host, config)
        claims.claim_subnets(host, [subnet for one in configs for subnet in one.subnets()])
        nft.ensure_network(host, config)
        changed = bridge.ensure(host, config)
        dnsmasq.ensure(host, configs, specs)
    return changed


def change(
    host: Host, old: NetworkConfig, new: NetworkConfig, configs: Sequence[NetworkConfig], specs: Sequence[Spec]
) -> list[str]:
    """Make a network another while it runs: its subnets, and whether it reaches out by NAT.

    old: what it may be until now, in whole or in part; only its number must be the new one's. configs: all that there
    will be, the new one too. Links stay on the bridge, and connections that are open keep the addresses that they have.
    Returns what was changed of the host's own settings. Raises InUse where the subnet is another's or routed elsewhere.
    """
    _check((old, new, *configs))
    with _lock(host):
        if not set(new.subnets()) <= set(old.subnets()):
            refuse_routed(host, new)
        wanted = [subnet for one in configs for subnet in one.subnets()]
        claims.claim_subnets(host, [*wanted, *old.subnets()])
        nft.change_network(host, old, new)
        failpoint(host.state_dir, "network-change.filter")
        changed = bridge.ensure(host, new)
        failpoint(host.state_dir, "network-change.bridge")
        dnsmasq.ensure(host, configs, specs)
        claims.claim_subnets(host, wanted)
    return changed


def remove(host: Host, config: NetworkConfig, configs: Sequence[NetworkConfig], specs: Sequence[Spec]) -> None:
    """Take a network away; configs, specs: what stays. The caller has seen that no container is on it."""
    _check((config, *configs))
    with _lock(host):
        bridge.remove(host, config.number)
        nft.forget_network(host, config)
        dnsmasq.ensure(host, configs, specs)
        claims.claim_subnets(host, [subnet for one in configs for subnet in one.subnets()])


def remove_all(host: Host) -> None:
    """Take everything of the instance's network away: links, bridges, tables, dnsmasq, claims."""
    with _lock(host):
        dnsmasq.stop(host)
        with bridge.netlink("removing the network") as ip:
            names = [message.get("ifname") for message in ip.get_links()]
        ours = (f"vb{host.instance}", f"boxbr{host.instance}")
        veth.delete(sorted((name for name in names if name.startswith(ours)), reverse=True))
        rates.remove(host, rates.chains(host))
        nft.remove_tables(host)
        claims.claim_subnets(host, ())


def keep_up(host: Host, stored: Callable[[], Mapping[str, Spec]], ensure: Callable[[Sequence[Spec]], object]) -> None:
    """Do what is done for all containers at once, and then again what came, changed or went in the meantime.

    Containers are registered and unregistered without a lock, after the store says what they are: what was read
    before may bring back what is gone and take away what is new. stored: reads the specs by id.
    """
    before = stored()
    ensure(list(before.values()))
    while (now := stored()) != before:
        for container_id in before.keys() - now.keys():
            unregister(host, container_id)
            # dnsmasq may have been away, to be started anew, when whoever deleted it wanted to give this back
            dnsmasq.forget_leases(host, [nic.mac for nic in before[container_id].nics])
        for container_id, spec in now.items():
            if before.get(container_id) != spec:
                register(host, spec)
        before = now


def choose_subnets(host: Host, taken: Iterable[str] = (), seed: str = "") -> subnets.Subnets:
    """Choose gateways for a new network: an IPv4 /24 and an IPv6 /64 that nothing on this host routes or claims.

    taken: the subnets of the instance's other networks, and whatever else is to be avoided. seed: the network's name.
    """
    return subnets.pick(f"{host.instance} {seed}", _avoid(host, taken))


def refuse_routed(host: Host, config: NetworkConfig) -> None:
    """Raise InUse where the host reaches one of the network's subnets by another way than the network's bridge."""
    with bridge.netlink("reading routes") as ip:
        index = bridge.link_index(ip, host.bridge_name(config.number))
        other = [
            f"{message.get('dst')}/{message['dst_len']}"
            for message in ip.get_routes()
            if message.get("dst") and message["dst_len"] and message.get("oif") != index and message["type"] == 1
        ]
    for subnet in config.subnets():
        clash = subnets.check_free(subnet, other)
        if clash:
            raise InUse(
                say("The host already routes %(clash)s.", clash=clash),
                field="ipv6" if ":" in subnet else "ipv4",
                users=[clash],
            )


def _avoid(host: Host, taken: Iterable[str]) -> list[str]:
    with bridge.netlink("reading routes") as ip:
        found = bridge.routes(ip)
        gateways = [message.get("gateway") for message in ip.get_default_routes()]
    found += [text for text in (*gateways, *dnsmasq.nameservers(Path("/etc/resolv.conf"))) if text]
    return [*found, *claims.foreign_subnets(host), *taken]


def register(host: Host, spec: Spec) -> None:
    """Let the packet filter, DHCP and DNS know a container, and forget what its links' names stood for before."""
    plugging.register(host, spec)


def expect(host: Host, spec: Spec) -> None:
    """Let the packet filter know a container that is about to be made; register() afterwards has little to do then."""
    nft.register(host, spec)


def unregister(host: Host, container_id: str) -> None:
    """Forget a container; twice is once."""
    nft.unregister(host, container_id)
    rates.forget(host, container_id)
    dnsmasq.unregister(host, container_id)


def attach(host: Host, spec: Spec, netns_fd: int, parents: plugging.Parents = _NO_PARENTS) -> list[plugging.Placed]:
    """Make the container's NICs in its network namespace; netns_fd is borrowed.

    The packet filter is in place before a link comes up. Inside, the links are there and down, unless they were
    configured. parents: see plugging. Raises SetupFailed and what plugging.plug raises, and then leaves no link.
    """
    if not spec.nics or host_network(spec.nics):
        return []
    placed = plugging.plug(host, spec, spec.nics, netns_fd, parents)
    dnsmasq.register(host, spec)
    return placed


def detach(host: Host, spec: Spec) -> None:
    """Delete the container's links, and give back what it was lent; twice is once. Takes about 20 ms."""
    plugging.detach(host, spec)


@dataclass(frozen=True)
class Port:
    """The network of a host as a start needs it (lifecycle.launching.NetworkPort). parents: see plugging."""

    host: Host
    parents: plugging.Parents = field(default_factory=dict)

    def attach(self, spec: Spec, netns_fd: int) -> list[plugging.Placed]:
        """Make the container's NICs."""
        return attach(self.host, spec, netns_fd, self.parents)

    def detach(self, spec: Spec) -> None:
        """Take them away."""
        detach(self.host, spec)
