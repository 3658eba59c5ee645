"""One seed from scikit-learn's `random_state`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_random_state


def draw_seed(random_state: Any) -> int:
    """A seed, in [0, 2**31 - 1), for generators of one's own."""
    if random_state is None:  # the global generator is the caller's
        return int(np.random.SeedSequence().generate_state(1)[0]) % (2**31 - 1)
    return int(check_random_state(random_state).randint(2**31 - 1))
