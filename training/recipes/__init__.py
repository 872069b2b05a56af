"""One straight line from data to bundle per model. Recipes share stages and never import each other."""
