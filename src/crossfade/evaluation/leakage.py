"""Were evaluated items among those that the adapter was fitted on?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossfade.embeddings import Embeddings
from crossfade.embeddings.core import item_keys
from crossfade.evaluation.relevance import Judgements

__all__ = ["leakage_warning"]


def leakage_warning(
    queries: Embeddings, gallery: Embeddings, judgements: Judgements, fitted_on: npt.NDArray[np.uint64]
) -> str | None:
    """Name how many queries, and how many of their positives, the adapter was fitted on; None where there are none.

    Args:
        queries: the evaluated queries.
        gallery: what they search.
        judgements: of these queries in this gallery.
        fitted_on: keys of the items that the adapter was fitted on, salted by modality.
    """
    asked = np.isin(item_keys(queries.ids, salt=queries.modality), fitted_on)
    distinct = {id(rows): rows for rows in judgements.targets}
    right = np.unique(np.concatenate(list(distinct.values())))
    answers = np.isin(item_keys(gallery.ids[right], salt=gallery.modality), fitted_on)
    if not asked.any() and not answers.any():
        return None
    return (
        f"Leakage in {queries.modality}→{gallery.modality}: the adapter was fitted on {int(asked.sum())} of "
        f"{len(asked)} evaluated "
        f"{queries.modality} queries and on {int(answers.sum())} of the {len(answers)} {gallery.modality} items that are right "
        "answers to them, so its numbers are too good. Evaluate on held-out items (Pairs.split), or fit without these."
    )
