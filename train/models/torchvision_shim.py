"""Makes `import timm` work where torchvision's compiled operators don't fit the torch build.

The only torchvision wheel for this torch is built for CUDA; on a CPU build its import stops at
"operator torchvision::nms does not exist", because the library that would define the operator
can't be loaded. timm imports torchvision for image transforms and the kit needs neither operator,
so their schemas are enough. Import this before timm. Where torchvision is healthy it does nothing.
"""

from __future__ import annotations

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# The library object must stay alive: its registrations end with it.
_library: torch.library.Library | None = None

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "DEF")
    for _schema in _SCHEMAS:
        _library.define(_schema)
    import torchvision  # noqa: F401
