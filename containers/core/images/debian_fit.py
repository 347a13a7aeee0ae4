"""The shell script that makes a fresh Debian fit for a container; it runs inside of it, by chroot, in the sandbox.

Its environment has SUITE, MIRROR, SECURITY (empty for none) and LATER, packages. What it changes, and why:

- systemd units that cannot work in a container are masked, so that ``systemctl is-system-running`` says running;
- the network is Debian's own ifupdown and dhclient; without a DHCP server the boot waits 10 seconds, not minutes;
- nothing is left that two containers must not share: machine id, ssh keys, leases, seeds; sshd's keys are made at boot;
- the console shows a login; root has no password and is locked until somebody sets one.
"""

from __future__ import annotations

from typing import Final

FIT: Final = r"""
umask 022

# apt: the suite with its updates
{
    echo "deb $MIRROR $SUITE main"
    if [ -n "$SECURITY" ]; then
        echo "deb $MIRROR $SUITE-updates main"
        echo "deb $SECURITY $SUITE-security main"
    fi
} >/etc/apt/sources.list

# packages that take the place of others
if [ -n "$LATER" ]; then
    apt-get -q update
    apt-get -q -y --no-install-recommends install $LATER
fi

# network
echo debian >/etc/hostname
cat >/etc/hosts <<'END'
127.0.0.1	localhost
::1		localhost ip6-localhost ip6-loopback
ff02::1		ip6-allnodes
ff02::2		ip6-allrouters
END
if [ -d /etc/network ]; then
    cat >/etc/network/interfaces <<'END'
# interfaces(5) file used by ifup(8) and ifdown(8)
source /etc/network/interfaces.d/*

auto lo
iface lo inet loopback

# with a slash: only where there is such a card
auto /eth0
iface eth0 inet dhcp
END
fi
if [ -f /etc/dhcp/dhclient.conf ]; then
    cat >>/etc/dhcp/dhclient.conf <<'END'

# the DHCP server of a container is on the same machine: it answers at once or not at all
initial-interval 1;
backoff-cutoff 3;
timeout 10;
retry 15;
END
fi
if [ -f /etc/dhcpcd.conf ]; then
    # the same, and an address that follows from the card's own: a DUID of the machine would be that of all on this host
    sed -i 's/^duid$/duid ll/; s/^slaac private$/slaac hwaddr/' /etc/dhcpcd.conf
    cat >>/etc/dhcpcd.conf <<'END'

# the DHCP server of a container is on the same machine: it answers at once or not at all
timeout 10
# where none is, what the panel has set stays as it is: an address made up here would take the default route, too
noipv4ll
# the network gives IPv6 addresses by router advertisements
nodhcp6
END
fi
rm -f /etc/resolv.conf
: >/etc/resolv.conf

# locale and time
echo 'LANG=C.UTF-8' >/etc/default/locale

# units that need what a container has not
if [ -x /lib/systemd/systemd ]; then
    for unit in \
        dev-hugepages.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
        sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
        e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-journald-audit.socket \
        systemd-modules-load.service systemd-pstore.service systemd-remount-fs.service \
        systemd-firstboot.service systemd-hwdb-update.service systemd-binfmt.service; do
        ln -sf /dev/null "/etc/systemd/system/$unit"
    done
    rm -f /etc/systemd/system/*.wants/e2scrub_* /etc/systemd/system/*.wants/fstrim.timer
    rm -f /etc/systemd/system/*.wants/systemd-pstore.service /etc/systemd/system/getty.target.wants/getty@tty1.service
    ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target
    mkdir -p /etc/systemd/system/getty.target.wants
    ln -sf /lib/systemd/system/console-getty.service /etc/systemd/system/getty.target.wants/console-getty.service
    cat >/etc/systemd/system/boxroom-ssh-keys.service <<'END'
[Unit]
Description=Keys of the ssh server, each container its own
ConditionPathExists=/usr/bin/ssh-keygen
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target ssh.service
END
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf ../boxroom-ssh-keys.service /etc/systemd/system/multi-user.target.wants/boxroom-ssh-keys.service
fi

# sysvinit: a login on the console, signals from the panel, and scripts that do to a machine what a container is spared
if [ -f /etc/inittab ]; then
    sed -i -e '/^[1-6]:.*getty/d' -e '/^\(ca\|pf\|pn\|po\|si\):/d' /etc/inittab
    cat >>/etc/inittab <<'END'

# /run, and then all of /etc/rcS.d
si::sysinit:/etc/init.d/boxroom-rcS
# SIGINT and SIGPWR: the panel's restart and stop
ca:12345:ctrlaltdel:/sbin/init 6
pf:12345:powerfail:/sbin/init 0
co:2345:respawn:/sbin/agetty --noclear --keep-baud console 115200,38400,9600 linux
END
    cat >/etc/init.d/boxroom-rcS <<'END'
#!/bin/sh
# /proc, /sys and /dev are mounted already
mountpoint -q /run || mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -p -m 1777 /run/lock
# a login on each terminal that there is, which may be others than at the last boot: init reads one line of each file
changed=
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do
    file=/etc/inittab.d/boxroom-tty$number.tab
    if [ -c "/dev/tty$number" ] && [ ! -f "$file" ]; then
        echo "t$number:2345:respawn:/sbin/agetty --noclear --keep-baud tty$number 9600 linux" >"$file" && changed=1
    elif [ ! -c "/dev/tty$number" ] && [ -f "$file" ]; then
        rm -f "$file" && changed=1
    fi
done
[ -z "$changed" ] || kill -HUP 1
exec /etc/init.d/rcS
END
    chmod 755 /etc/init.d/boxroom-rcS
    mkdir -p /etc/inittab.d
    ln -sf ../proc/self/mounts /etc/mtab
    for script in bootlogs brightness checkfs.sh checkroot-bootclean.sh checkroot.sh hwclock.sh mount-configfs \
        mountdevsubfs.sh mountkernfs.sh procps umountfs umountroot; do
        [ ! -f "/etc/init.d/$script" ] ||
            sed -i '/^### END INIT INFO/a exit 0  # in a container there is nothing for it to do' "/etc/init.d/$script"
    done
    if [ -f /etc/rc.conf ]; then
        printf '\n# control groups are the panel'\''s business\nrc_controller_cgroups="NO"\n' >>/etc/rc.conf
        rm -f /etc/runlevels/sysinit/cgroups
    fi
fi

# what must not be shared, and what is not needed
apt-get clean
rm -f /usr/sbin/policy-rc.d /etc/dpkg/dpkg.cfg.d/boxroom-build
rm -f /etc/ssh/ssh_host_* /var/lib/dhcp/*.leases /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -rf /var/lib/dhcpcd/*
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/log/bootstrap.log
rm -rf /var/log/apt/* /var/log/dpkg.log /var/log/alternatives.log /debootstrap /tmp/* /run/* /var/tmp/*
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
[ ! -d /var/lib/dbus ] || ln -s /etc/machine-id /var/lib/dbus/machine-id
echo fit: done
"""
