"""Recommendations from positive and negative examples or an owner's interests."""
