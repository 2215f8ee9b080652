"""The HTML report: its figures, its tables and its page."""

import os
import tempfile

os.environ.setdefault("MPLCONFIGDIR", tempfile.gettempdir())  # for matplotlib: a container's home may be read-only
