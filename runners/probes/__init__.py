"""What can be measured on a trained model? One row per item or token, which `analysis` reads."""
