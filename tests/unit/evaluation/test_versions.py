"""AC and AM on matrices with known answers, and the matrix itself."""

import numpy as np
import pytest

from crossfade.embeddings import Embeddings
from crossfade.errors import EvaluationError
from crossfade.evaluation import Relevance, average_compatibility, average_multimodel_accuracy, compatibility_matrix
from crossfade.spaces import Space

NAN = np.nan


def test_known_answers():
    matrix = np.array([[0.4, NAN, NAN], [0.5, 0.6, NAN], [0.4, 0.7, 0.8]])
    # Pairs: (1,0) .5 > .4, (2,0) .4 = .4 is not strictly above, (2,1) .7 > .6.
    assert average_compatibility(matrix) == pytest.approx(2 / 3)
    assert average_multimodel_accuracy(matrix) == pytest.approx((0.4 + 0.5 + 0.6 + 0.4 + 0.7 + 0.8) / 6)
    np.testing.assert_equal(average_multimodel_accuracy(np.array([[0.3]])), 0.3)


@pytest.mark.parametrize("matrix", [np.ones((2, 3)), np.ones(3), np.full((2, 2), NAN), np.ones((1, 1))])
def test_bad_matrices_are_refused(matrix):
    with pytest.raises(EvaluationError):
        average_compatibility(matrix)


def test_the_matrix_measures_each_version_on_each_earlier_gallery():
    rng = np.random.default_rng(0)
    spaces = [Space(model=f"v{i}", dimension=8) for i in range(2)]
    truth = rng.standard_normal((200, 8)).astype(np.float32)

    def seen(noise, space):
        vectors = truth + noise * rng.standard_normal(truth.shape).astype(np.float32)
        return Embeddings([f"i{i}" for i in range(200)], vectors, space, "image")

    galleries = [seen(0.5, spaces[0]), seen(0.1, spaces[1])]
    queries = [[seen(0.5, spaces[0])], [seen(0.1, spaces[0]), seen(0.1, spaces[1])]]
    matrix = compatibility_matrix(queries, galleries, relevant=Relevance.same_id(), metric="R@1")
    assert np.isnan(matrix[0, 1])
    assert matrix[0, 0] < matrix[1, 0] < matrix[1, 1]
    assert average_compatibility(matrix) == 1.0
    with pytest.raises(EvaluationError, match="galleries 0 to i"):
        compatibility_matrix(queries[:1], galleries, relevant=Relevance.same_id(), metric="R@1")
