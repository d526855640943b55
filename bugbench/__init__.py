"""bugbench: break real PyTorch training programs in known ways and score who finds out."""

from pathlib import Path

__version__ = "0.1.0"

# In a checkout the folders bugs/, conf/, detectors/ and results/ lie beside this package. An installed wheel maps
# them into it; here the checkout's root joins the package's path, so that `bugbench.bugs` means the same in both.
_root = Path(__file__).resolve().parent.parent
if (_root / "bugs" / "__init__.py").is_file():
    __path__.append(str(_root))
