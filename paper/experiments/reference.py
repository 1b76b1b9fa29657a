"""What 2605.12484 reports, to be held against ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAPER: Mapping[str, Any] = {
    "speed": {"CodeIO": 3.0, "Math": 1.4, "HoVer-hard": 3.0},
    "asymptote": {"CodeIO": (47.4, 43.0), "Math": (49.2, 46.4), "HoVer-hard": (25.0, 17.3)},
    "kl_reduction": 0.70,
    "plasticity": {"HoVer-hard after Math": (20.2, 0.0, 16.7), "HoVer-hard after Physics": (18.3, 19.9, 24.2)},
    "decomposition": {"HoVer-hard": (2.0, 11.6, 10.6, 21.2)},
}
"""Numbers of 2605.12484: FST over RL; (FST, RL) asymptotes; largest reduction of KL at matched reward; reward after fresh RL
from (base, RL, FST); pass@1 of (base, slow only, fast only, both)."""
