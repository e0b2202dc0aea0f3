"""Training: recipes, packing, and the three stages through transformers' Trainer."""
