"""An exercise: derive three gradients by hand, and be told which terms are right."""
