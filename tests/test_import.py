import subprocess
import sys

import pytest

import alphastomics as al


@pytest.mark.parametrize("module", ["alphastomics", "alphastomics.main"])
def test_import_loads_nothing_heavy(module):
    code = (
        f"import sys, {module};"
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
    for part in ("nn.transformer", "metrics"):
        code = (
            f"import sys, alphastomics.{part};"
            "print([m for m in sys.modules if m.startswith('alphastomics.') and "
            f"not m.startswith(('alphastomics.config', 'alphastomics.{part.split('.')[0]}')) "
            "and m not in ('alphastomics._options', 'alphastomics._yaml')])"  # of the config
        )
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == "[]"
