"""The study of docs/study: comparisons on real data, the search for a recipe, the rule for a new default."""
