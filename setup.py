"""What pyproject.toml cannot say: the configs lie beside the package, and ship within it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["bigxfer*", "launch*"]), "bigxfer.configs"],
    package_dir={"bigxfer.configs": "configs"},
)
