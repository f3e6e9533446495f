"""What can be measured on a trained model? Items of tasks, one row each, which `analysis` reads."""
