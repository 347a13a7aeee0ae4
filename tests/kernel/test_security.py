"""A container's security settings, asked from inside: of its init, and of what is started in it later."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from containers.clients import hostlink
from containers.core.errors import CoreError, SetupFailed
from containers.core.hoststore import more_ids, store
from containers.core.lifecycle import running
from containers.core.model import capabilities
from containers.core.model.security import Prlimit, Security
from containers.core.model.states import Status
from containers.core.proc.records import RunFile

from .conftest import NoNetwork
from .patience import patient, wait_until


@pytest.fixture(autouse=True)
def instance_of_host(host, settings):
    """Let the web's side find the instance of this test."""
    settings.BOXROOM_RUN_DIR = host.run_dir


def sh(spec, script, **more):
    """Run a shell script in a running container; returns what it wrote."""

    async def run():
        try:
            return await hostlink.execute(spec.id, ["/bin/sh", "-c", script], timeout_sec=patient(60), **more)
        finally:
            # the transport closes its socket at the next turn of the loop
            await asyncio.sleep(0)

    result = asyncio.run(run())
    return result.stdout.decode() + result.stderr.decode()


@pytest.fixture
def secured(host, container):
    """Start a container with these security settings."""

    def start(security, **changes):
        spec = container(security=security, **changes)
        running.start(host, spec, network=NoNetwork())
        return spec

    return start


def status_of(text):
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def init_of(host, spec):
    return RunFile.read(host.run_path(spec.id)).init.pid


@pytest.mark.parametrize(
    "security",
    [
        Security(capabilities_drop=("sys_admin", "net_raw")),
        Security(capabilities_keep=("chown", "kill")),
        Security(capabilities_drop=("setpcap", "setuid", "setgid", "sys_admin"), no_new_privs=True),
    ],
    ids=["without the right to load filters", "two alone", "without the right to change ids"],
)
@pytest.mark.parametrize("privileged", [False, True])
def test_capabilities_are_those_of_init_and_of_what_is_started_later(host, secured, security, privileged):
    spec = secured(security, privileged=privileged)
    wanted = capabilities.kept(privileged=privileged, keep=security.capabilities_keep, drop=security.capabilities_drop)
    of_init = status_of(Path(f"/proc/{init_of(host, spec)}/status").read_text())
    of_exec = status_of(sh(spec, "cat /proc/self/status"))
    for found in (of_init, of_exec):
        assert int(found["CapBnd"], 16) & ~wanted == 0
        assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == int(found["CapBnd"], 16)
        assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
        assert found["Seccomp"].strip() == "2"
        assert found["NoNewPrivs"].strip() == str(int(security.no_new_privs))
    assert of_init["CapBnd"] == of_exec["CapBnd"]
    # the host itself may lack some
    host_has = int(status_of(Path("/proc/self/status").read_text())["CapBnd"], 16) if privileged else wanted
    assert int(of_init["CapBnd"], 16) == wanted & host_has
    assert sh(spec, "id -u", user="1000").strip() == "1000"


@pytest.mark.lxc("With no_new_privs a set-uid program gives nothing", "L#3393", "lxc.no_new_privs")
def test_with_no_new_privs_a_set_uid_program_gives_nothing(host, layer, secured):
    program = store.rootfs(host, layer) / "bin/su"
    program.unlink()
    program.write_bytes((store.rootfs(host, layer) / "bin/busybox").read_bytes())
    program.chmod(0o4755)
    # busybox's su says so where it was not given root's id
    complaint = "must be suid"
    assert complaint not in sh(secured(Security()), "echo wrong | /bin/su -c true", user="1000")
    assert complaint in sh(secured(Security(no_new_privs=True)), "echo wrong | /bin/su -c true", user="1000")


@pytest.mark.lxc("Kernel settings are the container's own", "D#16937", "lxc.sysctl")
@pytest.mark.parametrize("privileged", [False, True])
def test_sysctls_are_set_in_the_container_and_nowhere_else(secured, privileged):
    wanted = {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.conf.lo.rp_filter": "2",
        "kernel.shmmax": "123456789",
        "kernel.sem": "300 32000 100 128",
        "kernel.domainname": "example.org",
        "fs.mqueue.msg_max": "77",
    }
    here = {name: Path("/proc/sys", name.replace(".", "/")) for name in wanted}
    before = {name: path.read_text() for name, path in here.items()}
    spec = secured(Security(sysctls=wanted), privileged=privileged)
    found = sh(spec, "; ".join(f"cat {path}" for path in here.values()))
    assert [line.split() for line in found.splitlines()] == [value.split() for value in wanted.values()]
    assert {name: path.read_text() for name, path in here.items()} == before


@pytest.mark.parametrize("name", ["net.core.rmem_max", "net.ipv4.no_such_thing", "kernel.msgmax"])
def test_a_sysctl_that_cannot_be_set_is_named_and_nothing_is_left(host, container, name):
    spec = container(security=Security(sysctls={name: "-17x"}))
    with pytest.raises(SetupFailed) as caught:
        running.start(host, spec, network=NoNetwork())
    assert caught.value.details["path"] == f"/proc/sys/{name.replace('.', '/')}"
    assert running.observe(host)[spec.id].status is Status.STOPPED


def test_limits_are_those_of_init_and_of_what_is_started_later(host, secured):
    wanted = {
        "nofile": Prlimit(soft=300, hard=400),
        "nproc": Prlimit(soft=50, hard=60),
        "core": Prlimit(soft=1024 * 1024, hard=2 * 1024 * 1024),
        "memlock": Prlimit(soft=65536, hard=131072),
    }
    spec = secured(Security(prlimits=wanted))
    for text in (Path(f"/proc/{init_of(host, spec)}/limits").read_text(), sh(spec, "cat /proc/self/limits")):
        found = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}
        assert found["Max open files"] == ["300", "400"]
        assert found["Max processes"] == ["50", "60"]
        assert found["Max core file size"] == ["1048576", "2097152"]
        assert found["Max locked memory"] == ["65536", "131072"]


def test_a_limit_above_the_supervisors_is_raised_where_the_host_may(host, container):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1000
    spec = container(security=Security(prlimits={"nofile": Prlimit(soft=hard, hard=hard)}))
    may = int(status_of(Path("/proc/self/status").read_text())["CapEff"], 16) >> 24 & 1
    if may:
        running.start(host, spec, network=NoNetwork())
        assert sh(spec, "ulimit -n").strip() == str(hard)
    else:
        with pytest.raises(SetupFailed, match="security settings") as failed:
            running.start(host, spec, network=NoNetwork())
        assert failed.value.details["path"] == "nofile"


def test_a_privileged_containers_score_may_be_below_zero_where_the_host_may(host, container):
    spec = container(privileged=True, security=Security(oom_score_adj=-300))
    if int(status_of(Path("/proc/self/status").read_text())["CapEff"], 16) >> 24 & 1:
        running.start(host, spec, network=NoNetwork())
        assert Path(f"/proc/{init_of(host, spec)}/oom_score_adj").read_text().strip() == "-300"
    else:
        with pytest.raises(SetupFailed, match="oom_score_adj"):
            running.start(host, spec, network=NoNetwork())


@pytest.mark.parametrize("value", [0, 700])
def test_when_memory_is_short_the_kernel_goes_by_the_containers_own_score(host, secured, value):
    spec = secured(Security(oom_score_adj=value))
    assert int(Path(f"/proc/{init_of(host, spec)}/oom_score_adj").read_text()) == value
    assert sh(spec, "cat /proc/self/oom_score_adj").strip() == str(value)


def _enters(spec):
    try:
        return sh(spec, "echo in").strip() == "in"
    except CoreError:
        return False


INNER = """
mkdir /sys/fs/cgroup/inner; echo $$ > /sys/fs/cgroup/inner/cgroup.procs
mkdir -p /lower /in && mount -t tmpfs none /in && cd /in && mkdir upper work root
echo from below > /lower/file
/bin/unshare-all -U -r -m -p -n -u -i -C -f sh -e -c '
mount -t overlay overlay -o lowerdir=/lower,upperdir=/in/upper,workdir=/in/work,userxattr /in/root
cat /in/root/file; echo changed > /in/root/file
mkdir -p /in/root/proc /in/root/sys /in/root/dev /in/root/bin /in/root/old
mount -t proc proc /in/root/proc
mount -t sysfs sysfs /in/root/sys
mount -t cgroup2 none /in/root/sys/fs/cgroup; mkdir /in/root/sys/fs/cgroup/inner
mount -t tmpfs none /in/root/dev; mkdir /in/root/dev/pts
mount -t devpts -o newinstance none /in/root/dev/pts
mount --bind /bin /in/root/bin
cd /in/root; pivot_root . old; umount -l /old
hostname inner; echo "pid $$ uid $(id -u) name $(hostname) $(cat /file)"
'
echo status $?; cat /lower/file
"""


@pytest.fixture
def as_init(host, container, layer):
    """Run a script as a container's init, which is in the cgroup that is the container's own; returns its lines."""

    def run(script, security):
        (store.rootfs(host, layer) / "script").write_text(f"exec >/out 2>&1\n{script}\n")
        spec = container(init_command=("/bin/sh", "/script"), security=security)
        running.start(host, spec, network=NoNetwork())
        wait_until(lambda: running.observe(host)[spec.id].status is Status.STOPPED, what="the script ends")
        upper = host.layers_dir / store.load_root(host, spec.id).writable / "rootfs"
        return (upper / "out").read_text().splitlines()

    return run


def put(program, root, name):
    """Copy a program of the host's, with the libraries that it needs, below a root directory."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for path in re.findall(r"(/\S+)", listed):
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(program, root / name)


@pytest.fixture
def unshare(host, layer):
    """Put util-linux's unshare into the layer: busybox's knows no cgroup namespaces."""
    put("/usr/bin/unshare", store.rootfs(host, layer), "bin/unshare-all")


@pytest.mark.usefixtures("unshare")
def test_with_nesting_an_inner_runtimes_mounts_work(as_init):
    found = as_init(INNER, Security(nesting=True))
    assert found == ["from below", "pid 1 uid 0 name inner changed", "status 0", "from below"]


@pytest.mark.usefixtures("unshare")
def test_without_nesting_they_do_not(as_init):
    assert "status 0" not in as_init(INNER, Security())


INNER_RUNTIME = """
mkdir -p /run /sys/fs/cgroup/init; echo $$ > /sys/fs/cgroup/init/cgroup.procs
cd /bundle; crun spec
sed -i 's/"terminal": true/"terminal": false/' config.json
sed -i 's|"sh"|"/bin/busybox","sh","-c","echo hello, $(hostname) $$"|' config.json
crun --cgroup-manager=cgroupfs run inner; echo status $?
"""


@pytest.mark.lxc("An inner container runtime runs where nesting is on, and not without", "I#2623")
@pytest.mark.parametrize("nesting", [False, True])
def test_an_inner_runtime_runs_where_nesting_is_on(host, layer, as_init, nesting):
    program = shutil.which("crun")
    if program is None:
        pytest.skip("crun is not installed")
    root = store.rootfs(host, layer)
    put(program, root, "bin/crun")
    for name in ("bin", "proc", "sys", "dev"):
        (root / "bundle/rootfs" / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", root / "bundle/rootfs/bin/busybox")
    found = as_init(INNER_RUNTIME, Security(nesting=nesting))
    if nesting:
        assert found == ["hello, crun 1", "status 0"]
    else:
        assert found[-1] == "status 1"


def test_settings_hold_after_a_reboot_inside(host, secured):
    spec = secured(Security(sysctls={"kernel.shmmax": "4711"}, oom_score_adj=5, no_new_privs=True))
    first = init_of(host, spec)
    with contextlib.suppress(CoreError):
        sh(spec, "reboot -f")
    wait_until(lambda: init_of(host, spec) != first, what="another init")
    wait_until(lambda: _enters(spec), what="it can be entered")
    assert sh(spec, "cat /proc/sys/kernel/shmmax /proc/self/oom_score_adj").split() == ["4711", "5"]


def test_ids_beyond_the_usual_are_one_containers_alone(host, container, ids_of_root):
    specs = [container(security=Security(ids=131072 + 65536 * number)) for number in range(2)]
    ranges = []
    for spec in specs:
        running.start(host, spec, network=NoNetwork())
        lines = [line.split() for line in sh(spec, "cat /proc/self/uid_map").splitlines()]
        assert [line[0] for line in lines] == ["0", "65536"]
        assert lines == [line.split() for line in sh(spec, "cat /proc/self/gid_map").splitlines()]
        ranges += [range(int(first), int(first) + int(count)) for _inside, first, count in lines]
        assert sum(map(len, ranges[-2:])) == spec.security.ids
        # alice's are hers, though they are root's, too
        assert ranges[-1].start >= 3000000000 + 65536
        assert sh(spec, "touch /file && chown 100000:131071 /file && stat -c %u:%g /file").strip() == "100000:131071"
        assert sh(spec, "id -u", user="100000").strip() == "100000"
    assert all(one is other or one.stop <= other.start or other.stop <= one.start for one in ranges for other in ranges)
    # they stay its own until it is deleted
    first = ranges[1].start
    running.stop(host, specs[0].id, kill=True)
    running.start(host, specs[0], network=NoNetwork())
    assert sh(specs[0], "cat /proc/self/uid_map").splitlines()[1].split()[1] == str(first)
    more_ids.release(host, specs[0].id)
    assert [path.name for path in (more_ids.claims.REGISTRY_DIR / "ids").glob(f"{host.instance}.*")] == [
        f"{host.instance}.{specs[1].id}.json"
    ]


def test_a_host_that_gives_root_none_says_so(host, container, tmp_path, monkeypatch):
    monkeypatch.setattr(more_ids, "ETC", tmp_path)
    spec = container(security=Security(ids=131072))
    with pytest.raises(CoreError) as caught:
        running.start(host, spec, network=NoNetwork())
    assert caught.value.field == "security.ids"
    assert running.observe(host)[spec.id].status is Status.STOPPED
