"""Training data: readers of annotation formats, checks, augmentation and batches."""
