import subprocess
import sys

import pytest

import alphastomics as al


def test_import_loads_nothing_heavy():
    code = (
        "import sys, alphastomics, alphastomics.main;"
        "heavy = {'torch', 'scvi', 'scanpy', 'squidpy', 'anndata'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_guides_import_works():
    from alphastomics.diffusion_model import MaskedDiffusionModule

    assert MaskedDiffusionModule.__name__ == "MaskedDiffusionModule"


def test_namespaces_are_found_and_a_wrong_name_is_named():
    for name in al.__all__:
        assert getattr(al, name) is not None
    assert "AlphaSTomics" in dir(al)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        al.nonsense  # noqa: B018


def test_arrows_run_down():
    """Layers of networks and metrics load no other part of the package."""
    code = (
        "import sys, alphastomics.metrics\n"
        "before = set(sys.modules)\n"
        "import alphastomics.nn.transformer\n"
        "config = ('alphastomics.config', 'alphastomics._options', 'alphastomics._yaml')\n"
        "for part, modules in ('metrics', before), ('nn', set(sys.modules) - before):\n"
        "    allowed = (*config, f'alphastomics.{part}')\n"
        "    ours = [m for m in modules if m.startswith('alphastomics.')]\n"
        "    print([m for m in ours if not m.startswith(allowed)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "[]"]
