"""The limit on open files is what the process was given."""

import resource
import subprocess
import sys

from provider.runtime.open_files import limit_kept

PROGRAM = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))  # less than mlx-lm asks for
import provider.runtime.mlx_lm
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_importing_mlx_lm_leaves_the_limit_as_it_was():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True
    )
    assert (run.stdout.strip(), run.returncode) == ("(300, 1000)", 0), run.stderr


def test_other_limits_can_be_set_and_all_of_them_afterwards():
    set_limit = resource.setrlimit
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    core = resource.getrlimit(resource.RLIMIT_CORE)
    with limit_kept():
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == files
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, core[1])
    resource.setrlimit(resource.RLIMIT_CORE, core)
    assert resource.setrlimit is set_limit
