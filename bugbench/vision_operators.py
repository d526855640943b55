"""Make torchvision importable beside a CPU-only torch.

torchvision's wheels on the package index are built against CUDA torch. Beside a CPU-only torch their compiled
extension does not load, and the import stops because two operators are unknown. Declaring these two is enough for
transforms, data sets and models (detection models, which call them, stay unusable).
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_declarations: list[torch.library.Library] = []  # a Library's operators vanish when it is collected


def declare_vision_operators() -> None:
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` where torchvision's own extension cannot load."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or _declarations:
        return
    extensions = [p for p in Path(spec.origin).parent.glob("_C.*") if p.suffix in {".so", ".pyd", ".dylib"}]
    try:
        for extension in extensions:
            torch.ops.load_library(str(extension))
        if extensions:
            return
    except OSError:
        pass  # built for another torch: declare what the import asks for
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declarations.append(library)
