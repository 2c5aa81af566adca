"""The wheel carries `data/checkpoints` within the package, as `lfx_utils/checkpoints`; pyproject.toml cannot say so."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lfx_utils*"]), "lfx_utils.checkpoints"],
    package_dir={"lfx_utils.checkpoints": "data/checkpoints"},
    package_data={"lfx_utils": ["py.typed"], "lfx_utils.checkpoints": ["**/*.safetensors", "**/*.json"]},
)
