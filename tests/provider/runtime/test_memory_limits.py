"""All limits on the process's memory are found, wherever the system keeps them."""

import os
import resource
import subprocess
import sys

import pytest

from provider.runtime.memory_limits import MIN_REST, REST_SHARE, MemoryLimit, memory_limits
from tests.support.timeouts import TIMEOUT

PAGE = os.sysconf("SC_PAGE_SIZE")
GIB = 1 << 30


def fill(folder, **files):
    """Write files into a folder; `_` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


class Process:
    """A folder like the one in /proc that tells of a process, and its cgroups."""

    def __init__(self, folder):
        self.proc, self.cgroups = folder / "proc", folder / "sys"
        fill(self.proc, statm="3000 2000 100 10 0 1000 0")

    def mount(self, *, version, path, top="/"):
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
        line = f"30 23 0:26 {top} {self.cgroups} rw,relatime shared:9 - {kind} cgroup {options}"
        number, names = (0, "") if version == 2 else (4, "memory")
        fill(self.proc, mountinfo=f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{line}")
        fill(self.proc, cgroup=f"5:cpu,cpuacct:/elsewhere\n{number}:{names}:{path}")

    def limits(self):
        return {limit.name: limit for limit in memory_limits(self.proc)}


@pytest.fixture
def process(tmp_path):
    return Process(tmp_path)


def test_the_machine_is_a_limit_of_which_the_process_has_a_part(process):
    (machine,) = process.limits().values()
    assert machine.nbytes == PAGE * os.sysconf("SC_PHYS_PAGES")
    assert machine.used == 2000 * PAGE


def test_a_system_without_such_files_has_the_machines_memory(tmp_path):
    (machine,) = memory_limits(tmp_path / "nothing")
    assert (machine.used, machine.left) == (0, machine.nbytes)


def test_every_cgroup_above_the_process_is_a_limit(process):
    process.mount(version=2, path="/pod/container")
    fill(process.cgroups, memory_current=9 * GIB)
    fill(process.cgroups / "pod", memory_max=2 * GIB, memory_high=3 * GIB, memory_current=GIB)
    fill(process.cgroups / "pod/container", memory_max="max", memory_high="max", memory_current=7)
    limits = process.limits()
    del limits["the machine's memory"]
    pod = process.cgroups / "pod"
    assert set(limits) == {f"memory.max of {pod}", f"memory.high of {pod}"}
    assert limits[f"memory.max of {pod}"] == MemoryLimit(f"memory.max of {pod}", 2 * GIB, GIB)


def test_the_first_version_of_cgroups_has_other_files(process):
    process.mount(version=1, path="/service")
    fill(process.cgroups, memory_limit_in_bytes=GIB, memory_usage_in_bytes=5)
    service = process.cgroups / "service"
    fill(service, memory_limit_in_bytes=2 * GIB, memory_usage_in_bytes=GIB)
    limits = process.limits()
    assert limits[f"memory.limit_in_bytes of {service}"].left == GIB
    root = limits[f"memory.limit_in_bytes of {process.cgroups}"]
    assert (root.nbytes, root.used) == (GIB, 2000 * PAGE), "it is at least what the process has"


def test_the_page_cache_is_not_in_use(process):
    process.mount(version=2, path="/")
    fill(
        process.cgroups,
        memory_max=2 * GIB,
        memory_current=GIB,
        memory_stat=f"anon 5\nactive_file {GIB // 4}\ninactive_file {GIB // 2}\nslab 7",
    )
    assert process.limits()[f"memory.max of {process.cgroups}"].used == GIB // 4


@pytest.mark.parametrize("top", ["/docker/4711", "/"])
def test_a_container_that_sees_its_own_cgroup_as_root_finds_it(process, top):
    process.mount(version=1, path="/docker/4711", top=top)
    fill(process.cgroups, memory_limit_in_bytes=GIB, memory_usage_in_bytes=GIB // 2)
    assert process.limits()[f"memory.limit_in_bytes of {process.cgroups}"].left == GIB // 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't limit address space")
@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process_is_one(name):
    program = f"""
import resource
resource.setrlimit(resource.{name}, (3 << 30, resource.RLIM_INFINITY))
from provider.runtime.memory_limits import memory_limits
(limit,) = (limit for limit in memory_limits() if limit.name == "{name}")
assert limit.nbytes == 3 << 30
assert 0 < limit.used < 1 << 30
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT * 6)


def test_no_limit_of_the_process_is_none():
    names = {limit.name for limit in memory_limits()}
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        unlimited = resource.getrlimit(getattr(resource, name))[0] == resource.RLIM_INFINITY
        assert (name in names) != unlimited


def test_a_limit_leaves_room_for_the_arrays_of_a_step():
    assert MemoryLimit("", GIB // 2, GIB).room == 0
    assert MemoryLimit("", GIB).room == GIB // 2
    assert MemoryLimit("", 5 * GIB).room == 5 * GIB - MIN_REST
    assert MemoryLimit("", 50 * GIB).room == 50 * GIB - 50 * GIB // REST_SHARE
    assert MemoryLimit("", 4 * GIB, GIB, GIB).room == GIB
