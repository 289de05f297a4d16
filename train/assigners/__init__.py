"""Which cells of the feature maps learn which object."""

from train.assigners.atss import assign_atss
from train.assigners.dynamic_soft_label import assign_dynamic_soft_labels
from train.assigners.positives import Positives

__all__ = ["Positives", "assign_atss", "assign_dynamic_soft_labels"]
