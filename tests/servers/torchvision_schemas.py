"""Start-up hook of the vLLM environment: let torchvision be imported beside a CPU build of torch.

vLLM imports torchvision, whose compiled operators do not load there ("operator torchvision::nms does not
exist"). None of them is called for the models tested here, so their schemas are enough. `install.sh` copies
this file into that environment's site-packages with a `.pth` file that imports it.
"""

import importlib.abc
import sys


class _Schemas(importlib.abc.MetaPathFinder):
    """Defines the missing operators once, just before torchvision is first imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(library)


_KEPT = []
sys.meta_path.insert(0, _Schemas())
