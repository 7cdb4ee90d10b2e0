"""What tests share: registries of models and families, twins, textbook formulas, tolerances."""
