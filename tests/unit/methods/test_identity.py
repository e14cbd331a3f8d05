from __future__ import annotations

import numpy as np
import pytest
import worlds

from crossfade.errors import FitError
from crossfade.methods import Identity


def test_maps_every_vector_to_itself(rotated: worlds.World) -> None:
    new = rotated.new["image"].matrix()
    np.testing.assert_allclose(Identity().fit(rotated.pairs()).map(new, "image"), new, atol=1e-6)


def test_unequal_dimensions_are_refused() -> None:
    with pytest.raises(FitError, match=r"12 \(new\) and 8 \(old\)"):
        Identity().fit(worlds.rotated(12, 8).pairs())
