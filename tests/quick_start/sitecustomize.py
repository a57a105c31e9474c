"""What Python runs first in each process that the tests start, some hundred of them.

Most of what such a process does is to load Ray and torch, and a tenth of that would be to look for garbage among what
stays. So it looks less often, and not when it ends, which would take up to a second.
"""

import atexit
import gc

gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)
