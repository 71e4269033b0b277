"""A short look at every line of ``make chaos``: what must never happen does not.

How long things take is measured there, on a quiet machine, and not here.
"""

import pytest

from tests.chaos import sockets, tunnel, workers, writing
from tests.chaos.lines import LINES

assert sockets
assert tunnel
assert workers
assert writing


@pytest.mark.timeout(300)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_no_listener_hears_a_wrong_word(line):
    reached = line.run(0.005)
    assert reached.is_right, reached.figure
