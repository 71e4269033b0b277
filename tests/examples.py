"""How Hypothesis tries its examples, wherever tests are run: to be imported by a conftest."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A busy machine is no fault of what is tested: no example has a deadline, and none is too slow. New
# examples are for who develops: a change is judged by the same ones each time.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize="CI" in os.environ,
)
settings.load_profile("patient")
