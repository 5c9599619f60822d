"""Recipes, and what training needs around `model.fit`: optimisers, metrics' wiring, backups, run directories."""
