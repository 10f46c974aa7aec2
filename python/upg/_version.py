"""The version of the library."""

from ._upg import version

__version__: str = version
