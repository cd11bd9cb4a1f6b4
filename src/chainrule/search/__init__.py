"""Searches for settings of a training."""

from chainrule.search.learning_rate import LearningRateTest, learning_rate_test

__all__ = ["LearningRateTest", "learning_rate_test"]
