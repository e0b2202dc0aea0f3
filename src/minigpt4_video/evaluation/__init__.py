"""Evaluation: answers first, then scores."""
