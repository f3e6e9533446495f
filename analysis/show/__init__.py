"""What is drawn, and how? Only here is matplotlib imported."""
