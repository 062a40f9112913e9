"""Which packages there are; everything else about the project is in pyproject.toml.

`strategies/` and `invariants/` lie at the top level of the repository, and are imported as `sr_fuzz.strategies` and
`sr_fuzz.invariants`: under their own names they would collide with a user's packages.
"""

from setuptools import find_packages, setup

MAPPED = ("strategies", "invariants")

packages = find_packages(include=["sr_fuzz", "sr_fuzz.*"])
for top in MAPPED:
    packages += [f"sr_fuzz.{name}" for name in [top, *(f"{top}.{inner}" for inner in find_packages(top))]]

setup(packages=packages, package_dir={f"sr_fuzz.{top}": top for top in MAPPED})
