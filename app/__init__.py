"""The window program and its run without a display. Knows the generator only through `app.door`."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
