import pytest
from typer.testing import CliRunner

from alphastomics.main import app

SMALL = ["--d_model", "16", "--num_heads", "2", "--num-layers", "1", "--d_ff", "16"]
SMALL += ["--set_size", "32", "--sets_per_section", "4", "--batch-size", "4", "--logger", "none"]


@pytest.fixture(scope="session")
def work(tissue, tmp_path_factory):
    """Raw data, processed data and one run."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "raw").mkdir()
    tissue.write_h5ad(folder / "raw" / "tissue.h5ad")
    (folder / "config.yaml").write_text(
        "training: {max_steps: 3, learning_rate: 1e-3}\ndiffusion: {sampling_steps: 2}\n"
    )
    split = ["--test_sections", "section_2", "--val_sections", "section_1"]
    commands = [
        ("preprocess", "--raw_dir", folder / "raw", "--output_dir", folder / "data", *split),
        ("train", "--config", folder / "config.yaml", "--data_dir", folder / "data", *SMALL),
    ]
    more = [("--labels_key", "cell_type"), ("--output_dir", folder / "run")]
    for command, options in zip(commands, more, strict=True):
        result = CliRunner().invoke(app, [str(word) for word in (*command, *options)])
        assert result.exit_code == 0, result.output
    return folder
