"""Scores with intervals, paired comparisons, confounds, learning curve, open set."""
