"""The terms that methods put their losses together from, and the gather that lets them see all processes' samples.

Each is a pure function on any device; in mixed precision it computes in float32 (float64 stays float64). n(·) divides
each row by its L2 norm; i runs over the n rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from crossfade.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cosine_loss", "distillation_loss", "gather_with_gradient", "info_nce", "mse_loss"]


def cosine_loss(mapped: Tensor, target: Tensor) -> Tensor:
    """The mean angle, as one minus its cosine::

        L = 1/n Σ_i (1 − ⟨n(mapped_i), n(target_i)⟩)

    Args:
        mapped: [n, d].
        target: [n, d].

    Returns:
        A scalar from 0 to 2.

    Raises:
        ConfigError: the shapes differ.
    """
    mapped, target = _same_shape(mapped, target)
    with _full_precision(mapped):
        return (1.0 - functional.cosine_similarity(mapped, target, dim=-1)).mean()


def mse_loss(mapped: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference of the coordinates::

        L = 1/(n d) Σ_i ‖mapped_i − target_i‖²

    Args:
        mapped: [n, d].
        target: [n, d].

    Returns:
        A scalar.

    Raises:
        ConfigError: the shapes differ.
    """
    mapped, target = _same_shape(mapped, target)
    with _full_precision(mapped):
        return functional.mse_loss(mapped, target)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float | Tensor,
    positives: Tensor | None = None,
    key_labels: Tensor | None = None,
    symmetric: bool = False,
    normalize: bool = True,
) -> Tensor:
    """Each query should prefer its own key, that of its row number, to all others (1807.03748)::

        s_ij = ⟨n(q_i), n(k_j)⟩ / τ                                                          (1)
        L = 1/n Σ_i −log( exp s_ii / (exp s_ii + Σ_{j ∈ N(i)} exp s_ij) )                    (2)
        N(i) = { j ≠ i : label(k_j) ≠ label(q_i) }                                           (3), all j ≠ i without labels
        L = ½ (L of queries against keys + L of the first n keys against queries)            (4), where symmetric

    Args:
        queries: q, [n, d].
        keys: k, [m, d] with m ≥ n; those past n are negatives of all queries.
        temperature: τ; a tensor where it is learned.
        positives: labels of the queries, [n]; a key with the label of a query is a duplicate of its right answer, and
            left out of its negatives.
        key_labels: labels of the keys, [m]; by default those of the queries, and keys past n are duplicates of nothing.
        symmetric: also let each key prefer its own query.
        normalize: compare by angle; false takes the inner product of the rows as they are.

    Returns:
        A scalar.

    Raises:
        ConfigError: shapes that do not fit, or a temperature that is not positive.
    """
    n = len(queries)
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or len(keys) < n:
        raise ConfigError(
            f"InfoNCE needs queries [n, d] and at least as many keys [m, d]; found {tuple(queries.shape)} and "
            f"{tuple(keys.shape)}."
        )
    if not isinstance(temperature, torch.Tensor) and not 0.0 < temperature < math.inf:
        raise ConfigError(f"The temperature must be positive; found {temperature}.")
    queries, keys = _full(queries), _full(keys)
    with _full_precision(queries):
        if normalize:
            queries, keys = functional.normalize(queries, dim=1), functional.normalize(keys, dim=1)
        logits = queries @ keys.T / temperature  # Eq. (1)
        right = torch.arange(n, device=logits.device)
        if positives is not None:
            logits = logits.masked_fill(_duplicates(positives, key_labels, n, len(keys)), -math.inf)  # Eq. (3)
        loss = functional.cross_entropy(logits, right)  # Eq. (2)
        return 0.5 * (loss + functional.cross_entropy(logits[:, :n].T, right)) if symmetric else loss  # Eq. (4)


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, *, teacher_temperature: float) -> Tensor:
    """How far the student's ranking of the same candidates is from the teacher's (1503.02531)::

        p_i = softmax(teacher_i / τ)
        L = 1/n Σ_i Σ_j p_ij (log p_ij − log softmax(student_i)_j)

    The teacher gets no gradient. The least value is 0, where the two agree.

    Args:
        student_logits: [n, m], already divided by the student's own temperature.
        teacher_logits: [n, m], before the temperature, for example cosines.
        teacher_temperature: τ.

    Returns:
        A scalar.

    Raises:
        ConfigError: the shapes differ, or the temperature is not positive.
    """
    if not 0.0 < teacher_temperature < math.inf:
        raise ConfigError(f"The teacher's temperature must be positive; found {teacher_temperature}.")
    student, teacher = _same_shape(student_logits, teacher_logits)
    with _full_precision(student):
        wanted = functional.log_softmax(teacher.detach() / teacher_temperature, dim=-1)
        given = functional.log_softmax(student, dim=-1)
        return functional.kl_div(given, wanted, reduction="batchmean", log_target=True)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """The rows of all processes, those of process 0 first; gradients flow back to the process that a row came from.

    A loss on gathered rows, averaged over the processes as DistributedDataParallel does, has the gradient that one
    process holding all rows would compute. With one process it is ``tensor`` itself.

    Args:
        tensor: [n, …], of one shape on all processes.

    Returns:
        [processes · n, …].
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensor
    if torch.distributed.get_world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        context.rows = len(tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        start = torch.distributed.get_rank() * context.rows
        return total[start : start + context.rows]


def _duplicates(positives: Tensor, key_labels: Tensor | None, queries: int, keys: int) -> Tensor:
    """Which keys, beside its own, are a query's right answer too: bool [queries, keys]."""
    labels = positives if key_labels is None else key_labels
    if positives.shape != (queries,) or labels.shape != ((queries,) if key_labels is None else (keys,)):
        raise ConfigError(
            f"InfoNCE needs a label for each of the {queries} queries and, where given, of the {keys} keys; found "
            f"{tuple(positives.shape)} and {tuple(labels.shape)}."
        )
    same = positives[:, None] == labels[None, :]
    same = functional.pad(same, (0, keys - same.shape[1]))
    return same.fill_diagonal_(False)


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _same_shape(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape:
        raise ConfigError(
            f"Both sides of a loss must have one shape; found {tuple(first.shape)} and {tuple(second.shape)}."
        )
    return _full(first), _full(second)


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(device_type=tensor.device.type, enabled=False)
