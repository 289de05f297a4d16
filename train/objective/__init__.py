"""Which cells of the feature maps learn which object."""

from train.objective.atss import assign_atss
from train.objective.dynamic_soft_label import assign_dynamic_soft_labels
from train.objective.positives import Positives

__all__ = ["Positives", "assign_atss", "assign_dynamic_soft_labels"]
