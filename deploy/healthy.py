"""End with 0 when the server on this machine answers: ``healthy.py PORT``. For HEALTHCHECK."""

import sys
import urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/health", timeout=4):
    pass
