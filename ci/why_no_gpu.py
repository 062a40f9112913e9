"""Print one line that says why nothing can run on a GPU here; print nothing where it can. Needs nothing but torch."""

import os
import re

try:
    import torch
except Exception as error:  # a broken installation raises OSError as often as ImportError
    if os.path.exists("/dev/nvidiactl"):
        # The line ends up between quotes in the Makefile.
        print("there is a GPU, but torch does not load:", re.sub(r"[^\w .,:/()-]", "", str(error).splitlines()[0]))
    else:
        print("no CUDA GPU here")
else:
    if not torch.cuda.is_available():
        print("no CUDA GPU here (torch.cuda.is_available() is false)")
