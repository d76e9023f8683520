"""Swipes -> a checkpoint that is proven finite."""
