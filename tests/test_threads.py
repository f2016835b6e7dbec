import json
import os
import subprocess
import sys
from threading import Thread

import pytest
import torch
from threadpoolctl import threadpool_info

from alphastomics import _threads
from alphastomics._threads import allowed_threads, limited_threads

MANY = 1024


@pytest.fixture(autouse=True)
def torch_count():
    """torch's number of threads, put back after each test."""
    count = torch.get_num_threads()
    yield count
    torch.set_num_threads(count)


@pytest.fixture
def unlimited(monkeypatch):
    """A machine without limits, where OpenMP started with many threads."""
    for variable in _threads._ENVIRONMENT:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(_threads, "_affinity_limit", lambda: MANY)
    monkeypatch.setattr(_threads, "_cgroup_limit", lambda: None)
    monkeypatch.setattr(_threads, "_torch_threads", lambda: (MANY, MANY))
    return monkeypatch


def raise_as_numba_does(number):
    """Call omp_set_num_threads of this thread, which torch does not record."""
    for library in _threads._libraries():
        if library.user_api == "openmp":
            library.set_num_threads(number)


def pool_sizes():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), (" 4 ", 4), ("2,1", 2)]
    + [(text, MANY) for text in ("", "0", "-2", "1.5", "all", ",", "²")],
)
def test_environment_variable(unlimited, variable, text, expected):
    unlimited.setenv(variable, text)
    assert allowed_threads() == expected


@pytest.mark.parametrize("smallest", ["omp", "slurm", "affinity", "cgroup", "torch"])
def test_the_smallest_limit_holds(unlimited, smallest):
    numbers = dict.fromkeys(("omp", "slurm", "affinity", "cgroup", "torch"), 8) | {smallest: 3}
    unlimited.setenv("OMP_NUM_THREADS", str(numbers["omp"]))
    unlimited.setenv("SLURM_CPUS_PER_TASK", str(numbers["slurm"]))
    unlimited.setattr(_threads, "_affinity_limit", lambda: numbers["affinity"])
    unlimited.setattr(_threads, "_cgroup_limit", lambda: numbers["cgroup"])
    unlimited.setattr(_threads, "_torch_threads", lambda: (numbers["torch"], 8))
    assert allowed_threads() == 3


def test_torch_above_the_initial_openmp_number_is_a_choice(unlimited):
    unlimited.setenv("OMP_NUM_THREADS", "1")
    unlimited.setattr(_threads, "_torch_threads", lambda: (4, 1))
    assert allowed_threads() == 4


def test_without_an_openmp_library_the_limits_hold(unlimited):
    unlimited.setenv("OMP_NUM_THREADS", "2")
    unlimited.setattr(_threads, "_torch_threads", lambda: (4, None))
    assert allowed_threads() == 2


def test_affinity_of_this_process():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert _threads._affinity_limit() == cores


V2 = {"proc/self/cgroup": "0::/user/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no cgroups"),
        pytest.param(V2, None, id="v2 without a file"),
        pytest.param(
            V2 | {"sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, None, id="v2 unlimited"
        ),
        pytest.param(V2 | {"sys/fs/cgroup/user/job/cpu.max": "400000 100000\n"}, 4, id="v2 quota"),
        pytest.param(
            V2
            | {
                "sys/fs/cgroup/user/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
            },
            2,
            id="v2 quota of the parent",
        ),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3, id="v2 container"),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, id="v2 half a core"),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "nonsense\n"}, None, id="v2 invalid"),
        pytest.param(V2 | {"sys/fs/cgroup/cpu.max": "100000 0\n"}, None, id="v2 no period"),
        pytest.param(
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3,
            id="v1 quota",
        ),
        pytest.param(
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
            },
            2,
            id="v1 container, mounted as cpu",
        ),
        pytest.param(
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            None,
            id="v1 unlimited",
        ),
        pytest.param(
            V1 | {"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "100000\n"},
            None,
            id="v1 without a period",
        ),
    ],
)
def test_cgroup_quota(tmp_path, files, expected):
    write(tmp_path, files)
    assert _threads._cgroup_limit(tmp_path) == expected


def test_cgroup_of_this_machine_can_be_read():
    limit = _threads._cgroup_limit()
    assert limit is None or limit >= 1


@pytest.fixture
def allow(monkeypatch):
    """Set the number that is allowed."""

    def set_number(number):
        monkeypatch.setattr(_threads, "allowed_threads", lambda: number)

    return set_number


def test_count_inside_and_after(allow):
    allow(1)
    torch.set_num_threads(3)
    before = pool_sizes()
    with limited_threads() as n_threads:
        assert n_threads == torch.get_num_threads() == 1
        assert set(pool_sizes().values()) == {1}
    assert torch.get_num_threads() == 3
    assert pool_sizes() == before


def test_pools_are_not_raised(allow):
    allow(3)
    raise_as_numba_does(2)
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    with limited_threads():
        assert torch.get_num_threads() == 3  # torch follows the number; the pools do not
        assert [pool for pool in threadpool_info() if pool["user_api"] == "blas"] == blas
    assert torch.get_num_threads() == 2


def test_count_after_an_exception(allow):
    allow(1)
    torch.set_num_threads(3)
    with pytest.raises(KeyboardInterrupt), limited_threads():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 3
    assert _threads._torch_threads()[0] == 3


def test_nested(allow):
    torch.set_num_threads(4)
    allow(2)
    with limited_threads():
        allow(1)
        with limited_threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        raise_as_numba_does(3)
        allow(2)
        with limited_threads():
            assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_decorator(allow):
    allow(1)
    torch.set_num_threads(3)

    @limited_threads()
    def count(depth):
        """Count."""
        return [torch.get_num_threads()] + (count(depth - 1) if depth else [])

    assert count(2) == count(2) == [1, 1, 1]
    assert count.__doc__ == "Count."
    assert torch.get_num_threads() == 3


def test_the_number_of_torch_is_told_from_that_of_numba(unlimited):
    unlimited.undo()
    torch.set_num_threads(1)
    raise_as_numba_does(3)
    assert torch.get_num_threads() == 3
    assert _threads._torch_threads()[0] == allowed_threads() == 1
    with limited_threads():
        assert torch.get_num_threads() == 1
    # The raised number of this thread is back, and has not become torch's own.
    assert torch.get_num_threads() == 3
    assert _threads._torch_threads()[0] == 1


def test_a_new_python_thread_has_the_number_of_torch_afterwards(allow):
    allow(1)
    torch.set_num_threads(3)
    numbers = []

    def work():
        with limited_threads():
            numbers.append(torch.get_num_threads())
        numbers.append(torch.get_num_threads())

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert numbers == [1, 3]


def test_neither_the_module_nor_the_number_loads_torch():
    code = (
        "import sys; from alphastomics._threads import allowed_threads; allowed_threads();"
        "print(sorted({'torch', 'numpy', 'threadpoolctl'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


SCANPY = """
import json, os, sys, warnings
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
warnings.simplefilter("ignore")
numbers = {}
if "before" in sys.argv:
    import torch
    numbers["import"] = torch.get_num_threads()
if "choice" in sys.argv:
    import torch
    torch.set_num_threads(3)
import anndata, numpy as np, scanpy as sc, scipy.sparse as sp
counts = sp.random(60, 20, 0.3, format="csr", dtype=np.float32, random_state=0)
adata = anndata.AnnData(counts)
sc.pp.normalize_total(adata)
sc.pp.log1p(adata)
import torch
from alphastomics._threads import allowed_threads, limited_threads
numbers["scanpy"] = torch.get_num_threads()
with limited_threads() as numbers["yielded"]:
    numbers["inside"] = torch.get_num_threads()
numbers["after"] = torch.get_num_threads()
numbers["allowed"] = allowed_threads()
print(json.dumps(numbers))
"""


@pytest.mark.parametrize(
    ("order", "expected"),
    [(["before"], 1), (["later"], 1), (["choice"], 3)],
    ids=["torch before scanpy", "torch after scanpy", "the user's own number"],
)
def test_scanpy_does_not_raise_the_count_inside(order, expected):
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("OMP_", "MKL_", "NUMBA_", "SLURM_"))
    }
    out = subprocess.run(
        [sys.executable, "-c", SCANPY, *order],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    numbers = json.loads(out.stdout.splitlines()[-1])
    assert numbers["yielded"] == numbers["inside"] == numbers["allowed"] == expected
    assert numbers["after"] == numbers["scanpy"]  # whatever numba made of it
    assert numbers.get("import", 1) == 1
