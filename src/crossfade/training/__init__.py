"""The loop for methods that train, on Hugging Face accelerate; importing it does not import torch.

The losses, which do, are in :mod:`crossfade.training.losses`.
"""

from crossfade.training.loop import Batch, Task, TrainingConfig, TrainingResult, learning_rate_at, train

__all__ = ["Batch", "Task", "TrainingConfig", "TrainingResult", "learning_rate_at", "train"]
